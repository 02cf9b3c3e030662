//! Generated histories of one volume and two nodes: pods come and go, kubelets and the attacher act when they like,
//! caches lag. A volume is never mounted where it isn't attached, and in the end it is where it is wanted.

use std::time::Duration;

use proptest::prelude::*;

use super::attachment::{Attachment, Charge, Next, NodeSeen, Seen, belongs_in_report, blocks_others, decide};

const NODES: usize = 2;

/// What the API server holds about the volume on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Facts {
    is_wanted: bool,
    attachment: Attachment,
    is_reported: bool,
    is_in_use: bool,
}

const NOTHING: Facts = Facts {
    is_wanted: false,
    attachment: Attachment::None,
    is_reported: false,
    is_in_use: false,
};

#[derive(Clone, Copy, Debug, Default)]
struct Kubelet {
    /// It has read that the volume is attached, and may mount it any time.
    is_cleared: bool,
    is_mounted: bool,
}

#[derive(Debug)]
struct World {
    live: [Facts; NODES],
    cached: [Facts; NODES],
    kubelets: [Kubelet; NODES],
    /// Where the driver has really published the volume.
    published: [bool; NODES],
    can_fail: bool,
}

#[derive(Clone, Copy, Debug)]
enum Happening {
    Want {
        node: usize,
        is_wanted: bool,
    },
    Kubelet {
        node: usize,
    },
    Attacher {
        node: usize,
        luck: Luck,
    },
    /// One of the caches catches up: they are fed by different watches.
    Deliver {
        node: usize,
        watch: Watch,
    },
    SyncVolume,
    SyncNode {
        node: usize,
    },
}

#[derive(Clone, Copy, Debug)]
enum Watch {
    Pods,
    Nodes,
    Attachments,
}

/// What becomes of a call to the driver.
#[derive(Clone, Copy, Debug)]
enum Luck {
    Good,
    /// Nothing was done.
    Refused,
    /// It was done, but the answer is lost.
    AnswerLost,
}

fn any_happening() -> impl Strategy<Value = Happening> {
    let node = 0..NODES;
    let luck = prop_oneof![3 => Just(Luck::Good), 1 => Just(Luck::Refused), 1 => Just(Luck::AnswerLost)];
    let watch = prop_oneof![Just(Watch::Pods), Just(Watch::Nodes), Just(Watch::Attachments)];
    prop_oneof![
        2 => (node.clone(), any::<bool>()).prop_map(|(node, is_wanted)| Happening::Want { node, is_wanted }),
        4 => node.clone().prop_map(|node| Happening::Kubelet { node }),
        3 => (node.clone(), luck).prop_map(|(node, luck)| Happening::Attacher { node, luck }),
        6 => (node.clone(), watch).prop_map(|(node, watch)| Happening::Deliver { node, watch }),
        3 => Just(Happening::SyncVolume),
        2 => node.prop_map(|node| Happening::SyncNode { node }),
    ]
}

impl World {
    fn new(can_fail: bool) -> Self {
        Self {
            live: [NOTHING; NODES],
            cached: [NOTHING; NODES],
            kubelets: [Kubelet::default(); NODES],
            published: [false; NODES],
            can_fail,
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Want { node, is_wanted } => self.live[node].is_wanted = is_wanted,
            Happening::Kubelet { node } => self.kubelet(node),
            Happening::Attacher { node, luck } => self.attacher(node, luck),
            Happening::Deliver { node, watch } => self.deliver(node, watch),
            Happening::SyncVolume => self.sync_volume(),
            Happening::SyncNode { node } => self.sync_node(node),
        }
        for node in 0..NODES {
            let is_mounted = self.kubelets[node].is_mounted;
            assert!(
                !is_mounted || self.published[node],
                "mounted without being attached: {self:#?}"
            );
        }
    }

    fn deliver(&mut self, node: usize, watch: Watch) {
        let (live, cached) = (self.live[node], &mut self.cached[node]);
        match watch {
            Watch::Pods => cached.is_wanted = live.is_wanted,
            Watch::Nodes => (cached.is_reported, cached.is_in_use) = (live.is_reported, live.is_in_use),
            Watch::Attachments => cached.attachment = live.attachment,
        }
    }

    /// Says that it uses the volume, reads that it is attached, mounts; and all the way back.
    fn kubelet(&mut self, node: usize) {
        let (facts, kubelet) = (&mut self.live[node], &mut self.kubelets[node]);
        match (
            facts.is_wanted,
            facts.is_in_use,
            kubelet.is_cleared,
            kubelet.is_mounted,
        ) {
            (true, false, _, _) => facts.is_in_use = true,
            (true, true, false, _) => kubelet.is_cleared = facts.is_reported,
            (true, true, true, _) => kubelet.is_mounted = true,
            (false, _, _, true) => kubelet.is_mounted = false,
            (false, _, true, false) => kubelet.is_cleared = false,
            (false, _, false, false) => facts.is_in_use = false,
        }
    }

    fn attacher(&mut self, node: usize, luck: Luck) {
        let is_elsewhere = (0..NODES).any(|other| other != node && self.published[other]);
        let luck = if self.can_fail { luck } else { Luck::Good };
        let attachment = match (self.live[node].attachment, luck) {
            (unchanged @ (Attachment::None | Attachment::Attached), _) => unchanged,
            (Attachment::Attaching | Attachment::Failed, Luck::Good) if !is_elsewhere => {
                self.published[node] = true;
                Attachment::Attached
            }
            (Attachment::Attaching | Attachment::Failed, luck) => {
                assert!(self.can_fail, "asked for a second node: {self:#?}");
                // The driver refuses a second node.
                self.published[node] |= !is_elsewhere && matches!(luck, Luck::AnswerLost);
                Attachment::Failed
            }
            (Attachment::Detaching, Luck::Good) => {
                self.published[node] = false;
                Attachment::None
            }
            (Attachment::Detaching, Luck::AnswerLost) => {
                self.published[node] = false;
                Attachment::Detaching
            }
            (Attachment::Detaching, Luck::Refused) => Attachment::Detaching,
        };
        self.live[node].attachment = attachment;
    }

    fn see(&self, node: usize) -> Seen {
        let facts = self.cached[node];
        let blocking =
            (0..NODES).filter(|other| *other != node && blocks_others(self.cached[*other].attachment));
        Seen {
            is_wanted: facts.is_wanted,
            unwanted_for: Duration::ZERO,
            attachment: facts.attachment,
            blocking_nodes: blocking.map(|other| other.to_string()).collect(),
            node: NodeSeen {
                charge: Charge::Ours,
                is_reported: facts.is_reported,
                is_in_use: facts.is_in_use,
                is_healthy: true,
                is_out_of_service: false,
            },
        }
    }

    fn sync_volume(&mut self) {
        for node in 0..NODES {
            match decide(&self.see(node), None) {
                Next::Create if self.live[node].attachment == Attachment::None => {
                    self.live[node].attachment = Attachment::Attaching;
                    self.cached[node].attachment = Attachment::Attaching;
                }
                // The fresh look.
                Next::Delete { .. } if !self.live[node].is_reported && !self.live[node].is_in_use => {
                    if self.live[node].attachment != Attachment::None {
                        self.live[node].attachment = Attachment::Detaching;
                    }
                    self.cached[node].attachment = self.live[node].attachment;
                }
                Next::Report => self.sync_node(node),
                Next::Settled
                | Next::Create
                | Next::AwaitAttacher
                | Next::AwaitOtherNodes(_)
                | Next::AwaitNode(_)
                | Next::Delete { .. } => {}
            }
        }
    }

    fn sync_node(&mut self, node: usize) {
        let is_reported = belongs_in_report(&self.see(node), None);
        self.live[node].is_reported = is_reported;
        self.cached[node].is_reported = is_reported;
    }

    /// Everybody acts until nothing changes.
    fn come_to_rest(&mut self) {
        for _ in 0..40 {
            for node in 0..NODES {
                self.happen(Happening::Attacher {
                    node,
                    luck: Luck::Good,
                });
                for watch in [Watch::Pods, Watch::Nodes, Watch::Attachments] {
                    self.happen(Happening::Deliver { node, watch });
                }
                self.happen(Happening::SyncNode { node });
                self.happen(Happening::Kubelet { node });
            }
            self.happen(Happening::SyncVolume);
        }
    }

    fn check_rest(&self) {
        let wanting: Vec<usize> = (0..NODES).filter(|node| self.live[*node].is_wanted).collect();
        let mounted: Vec<usize> = (0..NODES)
            .filter(|node| self.kubelets[*node].is_mounted)
            .collect();
        let published: Vec<usize> = (0..NODES).filter(|node| self.published[*node]).collect();
        match wanting.len() {
            NODES => assert_eq!(mounted.len(), 1, "wanted twice, for one node only: {self:#?}"),
            _ => assert_eq!((&mounted, &published), (&wanting, &wanting), "{self:#?}"),
        }
        for node in 0..NODES {
            assert_eq!(self.live[node].is_reported, mounted.contains(&node), "{self:#?}");
        }
    }
}

proptest! {
    #[test]
    fn mounted_only_where_attached(
        history in prop::collection::vec(any_happening(), 0..150),
        can_fail in any::<bool>(),
    ) {
        let mut world = World::new(can_fail);
        for happening in history {
            world.happen(happening);
        }
        world.come_to_rest();
        world.check_rest();
    }
}

#[test]
fn a_mounted_volume_is_not_detached_on_the_word_of_a_stale_cache() {
    let mut world = World::new(false);
    let attacher = Happening::Attacher {
        node: 0,
        luck: Luck::Good,
    };
    let deliver = |watch| Happening::Deliver { node: 0, watch };
    let kubelet = Happening::Kubelet { node: 0 };
    world.happen(Happening::Want {
        node: 0,
        is_wanted: true,
    });
    for happening in [
        deliver(Watch::Pods),
        Happening::SyncVolume,
        attacher,
        deliver(Watch::Attachments),
    ] {
        world.happen(happening);
    }
    // In use, cleared, mounted; the controller learns of the pod's end, not of the mount.
    for happening in [Happening::SyncNode { node: 0 }, kubelet, kubelet, kubelet] {
        world.happen(happening);
    }
    assert!(world.kubelets[0].is_mounted);
    world.happen(Happening::Want {
        node: 0,
        is_wanted: false,
    });
    for happening in [
        deliver(Watch::Pods),
        Happening::SyncVolume,
        Happening::SyncVolume,
        attacher,
    ] {
        world.happen(happening);
    }
    assert!(world.published[0] && !world.live[0].is_reported);
    world.come_to_rest();
    world.check_rest();
    assert_eq!(world.published, [false, false]);
}
