//! Query parameters, parsed once and by one parser for booleans and numbers.

use std::borrow::Cow;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::Failure;

/// The parameters of a request, decoded, in their order.
#[derive(Debug, Default)]
pub(crate) struct Query<'q>(Vec<(Cow<'q, str>, Cow<'q, str>)>);

impl<'q> Query<'q> {
    /// Takes the part behind `?` apart; text that is not UTF-8 is refused.
    pub(crate) fn parse(text: Option<&'q str>) -> Result<Self, Failure> {
        let mut pairs = Vec::new();
        for part in text
            .unwrap_or_default()
            .split('&')
            .filter(|part| !part.is_empty())
        {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            pairs.push((decode(name)?, decode(value)?));
        }
        Ok(Query(pairs))
    }

    /// The first value of a parameter; an empty one counts as absent.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next().filter(|value| !value.is_empty())
    }

    /// All values of a parameter.
    pub(crate) fn all<'s>(&'s self, name: &str) -> impl Iterator<Item = &'s str> + use<'s, 'q> {
        let found: Vec<&str> = self
            .0
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.as_ref())
            .collect();
        found.into_iter()
    }

    /// `watch`, `watch=1` and `watch=true` all mean yes.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, Failure> {
        Ok(self.optional_flag(name)?.unwrap_or(false))
    }

    /// As [`Query::flag`], telling absence from no.
    pub(crate) fn optional_flag(&self, name: &str) -> Result<Option<bool>, Failure> {
        match self.all(name).next() {
            None => Ok(None),
            Some("" | "1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(true)),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
            Some(other) => Err(Failure::bad_request(format!(
                "invalid value {other:?} for {name}: not a boolean"
            ))),
        }
    }

    /// A whole number.
    pub(crate) fn number<N: std::str::FromStr>(&self, name: &str) -> Result<Option<N>, Failure> {
        let parse = |text: &str| {
            text.parse()
                .map_err(|_| Failure::bad_request(format!("invalid value {text:?} for {name}: not a number")))
        };
        self.get(name).map(parse).transpose()
    }

    /// Whole seconds; zero counts as absent.
    pub(crate) fn seconds(&self, name: &str) -> Result<Option<Duration>, Failure> {
        let seconds = self.number::<u64>(name)?.filter(|&seconds| seconds > 0);
        Ok(seconds.map(Duration::from_secs))
    }

    /// Whether nothing shall be stored: `dryRun=All`, however often.
    pub(crate) fn dry_run(&self) -> Result<bool, Failure> {
        let mut dry = false;
        for value in self.all("dryRun").filter(|value| !value.is_empty()) {
            if value != "All" {
                let message = format!("invalid dryRun {value:?}: the only value is \"All\"");
                return Err(Failure::bad_request(message));
            }
            dry = true;
        }
        Ok(dry)
    }
}

fn decode(text: &str) -> Result<Cow<'_, str>, Failure> {
    let malformed = |_| Failure::bad_request("the query is not UTF-8");
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        let decoded = percent_decode_str(&spaced).decode_utf8().map_err(malformed)?;
        return Ok(Cow::Owned(decoded.into_owned()));
    }
    percent_decode_str(text).decode_utf8().map_err(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded() {
        let query = Query::parse(Some("labelSelector=a%3Db%2Cc+in+(d)&limit=5&watch&x=")).unwrap();
        assert_eq!(query.get("labelSelector"), Some("a=b,c in (d)"));
        assert_eq!(query.number::<u64>("limit").unwrap(), Some(5));
        assert!(query.flag("watch").unwrap());
        assert_eq!(query.get("x"), None);
    }

    #[test]
    fn booleans_have_one_parser() {
        let cases = [
            ("watch=1", Some(true)),
            ("watch=true", Some(true)),
            ("watch=false", Some(false)),
            ("watch=yes", None),
            ("", Some(false)),
        ];
        for (text, expected) in cases {
            let query = Query::parse(Some(text)).unwrap();
            assert_eq!(query.flag("watch").ok(), expected, "{text}");
        }
    }

    #[test]
    fn every_dry_run_must_be_all() {
        let cases = [
            ("", Some(false)),
            ("dryRun=All", Some(true)),
            ("dryRun=All&dryRun=All", Some(true)),
            ("dryRun=All&dryRun=x", None),
        ];
        for (text, expected) in cases {
            assert_eq!(
                Query::parse(Some(text)).unwrap().dry_run().ok(),
                expected,
                "{text}"
            );
        }
    }
}
