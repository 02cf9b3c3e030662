//! Looking out for the next call for a moment before the thread sleeps.
//!
//! To wake a sleeping thread takes longer than to answer most calls, the more so on a virtual machine, whose processor
//! sleeps along with it. A caller that works through many volumes asks again at once: so after many calls that came one
//! after the other the runtime is kept from sleeping for some microseconds after each, and somewhat longer while one is
//! running, which other threads work on. Without calls nothing is kept awake, and neither with several at a time: then
//! there is work anyway, and the processors are for that.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, task::yield_now, time::Instant};

/// Calls, counted.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// How many have begun or ended so far.
    turns: AtomicU64,
    running: AtomicUsize,
    /// The turn at which several were last running.
    crowded_at: AtomicU64,
    turned: Notify,
}

/// A call that is running; ends when dropped.
#[derive(Debug)]
pub(crate) struct Call(Arc<Calls>);

impl Calls {
    /// A call comes in.
    pub(crate) fn begin(self: &Arc<Self>) -> Call {
        let others = self.running.fetch_add(1, Ordering::Relaxed);
        let turn = self.turn();
        if others > 0 {
            self.crowded_at.store(turn, Ordering::Relaxed);
        }
        Call(Arc::clone(self))
    }

    fn turn(&self) -> u64 {
        let turn = self.turns.fetch_add(1, Ordering::Relaxed) + 1;
        self.turned.notify_one();
        turn
    }

    fn seen(&self) -> Seen {
        let turns = self.turns.load(Ordering::Relaxed);
        Seen {
            turns,
            alone: turns.saturating_sub(self.crowded_at.load(Ordering::Relaxed)),
            running: self.running.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
        self.0.turn();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    turns: u64,
    /// Turns since several were running.
    alone: u64,
    running: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Something has happened: the time begins anew.
    LookOutAnew,
    LookOut,
    Sleep,
}

/// How many times longer a call that is running is waited for.
const FOR_A_CALL: u32 = 5;

/// So many calls one after the other, in turns, are somebody who asks again at once.
const ALONE_MIN: u64 = 2 * 16;

impl Seen {
    fn is_one_after_the_other(self) -> bool {
        self.running < 2 && self.alone >= ALONE_MIN
    }
}

fn next(before: Seen, now: Seen, waited: Duration, span: Duration) -> Next {
    match now.running {
        _ if !now.is_one_after_the_other() => Next::Sleep,
        _ if now.turns != before.turns => Next::LookOutAnew,
        1 if waited < span * FOR_A_CALL => Next::LookOut,
        0 if waited < span => Next::LookOut,
        _ => Next::Sleep,
    }
}

/// Keeps the runtime awake for `span` after each turn of `calls`. Never ends; can be dropped anywhere.
pub(crate) async fn look_out(calls: &Calls, span: Duration) {
    loop {
        calls.turned.notified().await;
        let (mut before, mut since) = (calls.seen(), Instant::now());
        while before.is_one_after_the_other() {
            // Others go first, and the runtime asks the kernel for news before it comes back.
            yield_now().await;
            let now = calls.seen();
            match next(before, now, since.elapsed(), span) {
                Next::LookOutAnew => (before, since) = (now, Instant::now()),
                Next::LookOut => {}
                Next::Sleep => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_it_sleeps() {
        let seen = |turns, running| Seen {
            turns,
            alone: ALONE_MIN,
            running,
        };
        let crowded = |turns, running| Seen {
            alone: ALONE_MIN - 1,
            ..seen(turns, running)
        };
        let span = Duration::from_micros(10);
        let cases = [
            ("nothing happens", seen(5, 0), seen(5, 0), 9, Next::LookOut),
            ("for long", seen(5, 0), seen(5, 0), 10, Next::Sleep),
            ("a call comes", seen(5, 0), seen(6, 1), 9, Next::LookOutAnew),
            (
                "at the last moment",
                seen(5, 0),
                seen(6, 1),
                10,
                Next::LookOutAnew,
            ),
            ("a call goes", seen(6, 1), seen(7, 0), 60, Next::LookOutAnew),
            ("one came and went", seen(5, 0), seen(7, 0), 10, Next::LookOutAnew),
            ("a call is running", seen(6, 1), seen(6, 1), 49, Next::LookOut),
            ("and takes long", seen(6, 1), seen(6, 1), 50, Next::Sleep),
            ("several at a time", seen(6, 1), seen(7, 2), 0, Next::Sleep),
            ("still several", seen(7, 2), seen(7, 2), 0, Next::Sleep),
            ("several a moment ago", seen(7, 1), crowded(8, 1), 0, Next::Sleep),
            (
                "nothing after several",
                crowded(7, 0),
                crowded(7, 0),
                0,
                Next::Sleep,
            ),
        ];
        for (name, before, now, waited, expected) in cases {
            let waited = Duration::from_micros(waited);
            assert_eq!(next(before, now, waited, span), expected, "{name}");
        }
    }

    #[test]
    fn calls_are_counted_until_they_are_dropped() {
        let calls = Arc::new(Calls::default());
        let seen = |turns, alone, running| Seen {
            turns,
            alone,
            running,
        };
        let first = calls.begin();
        assert_eq!(calls.seen(), seen(1, 1, 1));
        let second = calls.begin();
        assert_eq!(calls.seen(), seen(2, 0, 2));
        drop(first);
        assert_eq!(calls.seen(), seen(3, 1, 1));
        drop(second);
        assert_eq!(calls.seen(), seen(4, 2, 0));
        drop(calls.begin());
        assert_eq!(calls.seen(), seen(6, 4, 0));
    }

    /// On the runtime of one thread everybody else still gets their turn, also what comes from the kernel.
    #[tokio::test]
    async fn others_work_meanwhile() {
        let calls = Arc::new(Calls::default());
        for _ in 0..ALONE_MIN {
            drop(calls.begin());
        }
        let _call = calls.begin();
        let (there, here) = std::os::unix::net::UnixStream::pair().unwrap();
        here.set_nonblocking(true).unwrap();
        let heard = async {
            let mut byte = [0];
            let mut here = tokio::net::UnixStream::from_std(here).unwrap();
            tokio::io::AsyncReadExt::read_exact(&mut here, &mut byte)
                .await
                .unwrap();
            byte
        };
        let said = std::thread::spawn(move || std::io::Write::write_all(&mut &there, &[7]));
        let byte = tokio::select! {
            byte = heard => byte,
            () = look_out(&calls, Duration::from_secs(3600)) => unreachable!("it never ends"),
        };
        assert_eq!(byte, [7]);
        said.join().unwrap().unwrap();
    }
}
