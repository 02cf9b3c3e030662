//! Which numbers a container's user has: the image's and the pod's wishes looked up in the image's own
//! `/etc/passwd` and `/etc/group`. Pure: the files come in as text.

use crate::container::SecurityContext;

/// Numbers a process runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Sorted, without duplicates.
    pub(crate) additional_gids: Vec<u32>,
    /// For `HOME`.
    pub(crate) home: String,
}

/// Why there is no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IdentityError {
    #[error("user {0:?} is not in the image's /etc/passwd")]
    UnknownUser(String),
    #[error("group {0:?} is not in the image's /etc/group")]
    UnknownGroup(String),
    #[error("the container would run as root, which runAsNonRoot forbids")]
    Root,
    #[error("runAsGroup without runAsUser")]
    GroupAlone,
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// Resolves the identity. The pod's numbers win over the image's `user` (`name`, `uid`, `name:group`, `uid:gid`).
/// Groups that `/etc/group` lists the user in are added, as the container runtimes in use do.
pub(crate) fn resolve(
    image_user: &str,
    security: &SecurityContext,
    passwd: &str,
    group: &str,
) -> Result<Identity, IdentityError> {
    let (user_part, group_part) = match security.run_as_user {
        Some(uid) => (uid.to_string(), None),
        None if security.run_as_group.is_some() && image_user.is_empty() => {
            return Err(IdentityError::GroupAlone);
        }
        None => match image_user.split_once(':') {
            Some((user, group)) => (user.to_owned(), Some(group)),
            None => (image_user.to_owned(), None),
        },
    };
    let (uid, entry) = find_user(&user_part, passwd)?;
    let gid = match (security.run_as_group, group_part) {
        (Some(gid), _) => gid,
        (None, Some(name)) if !name.is_empty() => find_group(name, group)?,
        (None, Some(_) | None) => entry.as_ref().map_or(0, |user| user.gid),
    };
    if security.run_as_non_root && uid == 0 {
        return Err(IdentityError::Root);
    }
    let mut additional_gids = security.supplemental_groups.clone();
    if let Some(user) = &entry {
        additional_gids.extend(groups_with_member(user.name, group));
    }
    additional_gids.push(gid);
    additional_gids.sort_unstable();
    additional_gids.dedup();
    let home = match entry
        .as_ref()
        .map(|user| user.home)
        .filter(|home| home.starts_with('/'))
    {
        Some(home) => home.to_owned(),
        None if uid == 0 => "/root".to_owned(),
        None => "/".to_owned(),
    };
    Ok(Identity {
        uid,
        gid,
        additional_gids,
        home,
    })
}

/// A number needs no entry; a name does.
fn find_user<'a>(wanted: &str, passwd: &'a str) -> Result<(u32, Option<User<'a>>), IdentityError> {
    if wanted.is_empty() {
        return Ok((0, users(passwd).find(|user| user.uid == 0)));
    }
    if let Ok(uid) = wanted.parse::<u32>() {
        return Ok((uid, users(passwd).find(|user| user.uid == uid)));
    }
    let user = users(passwd)
        .find(|user| user.name == wanted)
        .ok_or_else(|| IdentityError::UnknownUser(wanted.to_owned()))?;
    Ok((user.uid, Some(user)))
}

fn find_group(wanted: &str, group: &str) -> Result<u32, IdentityError> {
    if let Ok(gid) = wanted.parse::<u32>() {
        return Ok(gid);
    }
    groups(group)
        .find(|(name, _, _)| *name == wanted)
        .map(|(_, gid, _)| gid)
        .ok_or_else(|| IdentityError::UnknownGroup(wanted.to_owned()))
}

fn groups_with_member<'a>(user: &'a str, group: &'a str) -> impl Iterator<Item = u32> + 'a {
    groups(group)
        .filter(move |(_, _, members)| members.split(',').any(|member| member == user))
        .map(|(_, gid, _)| gid)
}

fn users(passwd: &str) -> impl Iterator<Item = User<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let _password = fields.next()?;
        let uid = fields.next()?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let _comment = fields.next();
        Some(User {
            name,
            uid,
            gid,
            home: fields.next().unwrap_or_default(),
        })
    })
}

fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let _password = fields.next()?;
        let gid = fields.next()?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/srv/app:/bin/sh\nbad line\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:app,other\nwheel:x:10:root\nappgrp:x:1001:\n";

    fn identity(uid: u32, gid: u32, additional: &[u32], home: &str) -> Result<Identity, IdentityError> {
        Ok(Identity {
            uid,
            gid,
            additional_gids: additional.to_vec(),
            home: home.to_owned(),
        })
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one flat table")]
    fn users_resolve_as_the_pod_and_the_image_say() {
        let none = SecurityContext::default;
        let as_user = |uid| SecurityContext {
            run_as_user: Some(uid),
            ..none()
        };
        let cases: Vec<(&str, &str, SecurityContext, Result<Identity, IdentityError>)> = vec![
            ("nobody named", "", none(), identity(0, 0, &[0, 10], "/root")),
            (
                "name",
                "app",
                none(),
                identity(1000, 1001, &[50, 1001], "/srv/app"),
            ),
            (
                "number with entry",
                "1000",
                none(),
                identity(1000, 1001, &[50, 1001], "/srv/app"),
            ),
            (
                "number without entry",
                "4242",
                none(),
                identity(4242, 0, &[0], "/"),
            ),
            (
                "name and group",
                "app:staff",
                none(),
                identity(1000, 50, &[50], "/srv/app"),
            ),
            ("numbers", "7:8", none(), identity(7, 8, &[8], "/")),
            (
                "pod wins over image",
                "app",
                as_user(4242),
                identity(4242, 0, &[0], "/"),
            ),
            (
                "pod's group and fsGroup",
                "app",
                SecurityContext {
                    run_as_group: Some(9),
                    supplemental_groups: vec![77, 9],
                    ..as_user(1000)
                },
                identity(1000, 9, &[9, 50, 77], "/srv/app"),
            ),
            (
                "unknown user",
                "ghost",
                none(),
                Err(IdentityError::UnknownUser("ghost".into())),
            ),
            (
                "unknown group",
                "app:ghosts",
                none(),
                Err(IdentityError::UnknownGroup("ghosts".into())),
            ),
            (
                "root against runAsNonRoot",
                "",
                SecurityContext {
                    run_as_non_root: true,
                    ..none()
                },
                Err(IdentityError::Root),
            ),
            (
                "group without user",
                "",
                SecurityContext {
                    run_as_group: Some(5),
                    ..none()
                },
                Err(IdentityError::GroupAlone),
            ),
        ];
        for (name, image_user, security, expected) in cases {
            assert_eq!(resolve(image_user, &security, PASSWD, GROUP), expected, "{name}");
        }
    }

    #[test]
    fn image_without_account_files_works_with_numbers() {
        assert_eq!(
            resolve("", &SecurityContext::default(), "", ""),
            identity(0, 0, &[0], "/root")
        );
        assert_eq!(
            resolve("12", &SecurityContext::default(), "", ""),
            identity(12, 0, &[0], "/")
        );
    }
}
