//! What a simulated thread gets in the place of the machine: its clock, its randomness, and its waiting.
//!
//! Time and randomness reach a Rust process through three functions of the C library: `clock_gettime`, `getrandom` and
//! `epoll_wait`. They are defined here and so take the library's place in every program this crate is linked into. On a
//! thread that has taken a [`Seat`] they answer from the seat: virtual time, a seeded stream of bytes, and no waiting
//! at all. On all others they do the system call. So everything is covered, also what no seam of ours could reach: the order of std's hash maps, tokio's `select!`, jitter in libraries, UIDs.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use nix::libc::{self, c_int, c_uint, c_void, clockid_t, epoll_event, size_t, ssize_t, timespec};

/// What virtual clocks of the day start from: noon of 2026-01-01, UTC.
const EPOCH_SECONDS: u64 = 1_767_268_800;
/// What virtual monotonic clocks start from: far enough from zero that subtracting minutes is no trouble.
const MONOTONIC_SECONDS: u64 = 1_000_000;
const NANOS: u64 = 1_000_000_000;

thread_local! {
    static IS_SEATED: Cell<bool> = const { Cell::new(false) };
    static NOW_NANOS: Cell<u64> = const { Cell::new(0) };
    static RANDOM: Cell<u64> = const { Cell::new(0) };
    /// The timeout of the wait that ended the last turn: milliseconds, negative for no end.
    static WAITED: Cell<Option<c_int>> = const { Cell::new(None) };
    static TURN: RefCell<Option<Waker>> = const { RefCell::new(None) };
}

/// A thread's place in a simulation. Until it is dropped, the thread's time stands still unless it is set, and its
/// randomness follows from the seed.
#[derive(Debug)]
pub struct Seat {
    _not_send: PhantomData<*const ()>,
}

impl Seat {
    /// Takes the place. Only threads that have done nothing else yet are fit: hash maps and generators made before
    /// took their seeds from the machine.
    #[must_use]
    pub fn take(seed: u64) -> Self {
        NOW_NANOS.set(0);
        RANDOM.set(seed);
        IS_SEATED.set(true);
        Self {
            _not_send: PhantomData,
        }
    }

    /// Sets the time, in nanoseconds since the simulation's start.
    pub fn set_now(&self, nanos: u64) {
        NOW_NANOS.set(nanos);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        IS_SEATED.set(false);
    }
}

/// Ends when the runtime that runs it has nothing to do but wait; says until when, in nanoseconds from now.
pub fn until_idle() -> impl Future<Output = Option<u64>> {
    WAITED.set(None);
    UntilIdle
}

struct UntilIdle;

impl Future for UntilIdle {
    type Output = Option<u64>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(timeout) = WAITED.take() {
            TURN.set(None);
            return Poll::Ready(u64::try_from(timeout).ok().map(|millis| millis * 1_000_000));
        }
        TURN.set(Some(cx.waker().clone()));
        Poll::Pending
    }
}

/// The next word of a splitmix64 generator.
pub(crate) fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut word = *state;
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

#[expect(unsafe_code, reason = "takes the place of a function of the C library")]
// SAFETY: the signature is that of the C library's function of this name.
#[unsafe(no_mangle)]
extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    if !IS_SEATED.get() {
        // SAFETY: the caller's own arguments, handed on.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) } as c_int;
    }
    let start = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => EPOCH_SECONDS,
        _ => MONOTONIC_SECONDS,
    };
    let nanos = NOW_NANOS.get();
    let now = timespec {
        tv_sec: (start + nanos / NANOS) as libc::time_t,
        tv_nsec: (nanos % NANOS) as libc::c_long,
    };
    // SAFETY: the caller gives a place for one timespec, as the C library demands.
    unsafe { time.write(now) };
    0
}

#[expect(unsafe_code, reason = "takes the place of a function of the C library")]
// SAFETY: the signature is that of the C library's function of this name.
#[unsafe(no_mangle)]
extern "C" fn getrandom(buffer: *mut c_void, length: size_t, flags: c_uint) -> ssize_t {
    if !IS_SEATED.get() {
        // SAFETY: the caller's own arguments, handed on.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) } as ssize_t;
    }
    let mut state = RANDOM.get();
    let mut written = 0;
    while written < length {
        let word = split_mix(&mut state).to_le_bytes();
        let count = word.len().min(length - written);
        // SAFETY: the caller gives `length` bytes of room, and `written + count` is at most that.
        unsafe {
            std::ptr::copy_nonoverlapping(word.as_ptr(), buffer.cast::<u8>().add(written), count);
        }
        written += count;
    }
    RANDOM.set(state);
    length as ssize_t
}

#[expect(unsafe_code, reason = "takes the place of a function of the C library")]
// SAFETY: the signature is that of the C library's function of this name.
#[unsafe(no_mangle)]
extern "C" fn epoll_wait(epoll: c_int, events: *mut epoll_event, room: c_int, timeout: c_int) -> c_int {
    if !IS_SEATED.get() {
        let none: *const libc::sigset_t = std::ptr::null();
        let size: size_t = 8;
        // SAFETY: the caller's own arguments, handed on, and no signal mask.
        let found = unsafe { libc::syscall(libc::SYS_epoll_pwait, epoll, events, room, timeout, none, size) };
        return found as c_int;
    }
    // Nothing real can happen to a simulated process. A wait that would end at once is not idleness.
    if timeout != 0 {
        WAITED.set(Some(timeout));
        TURN.with_borrow(|turn| {
            if let Some(waker) = turn {
                waker.wake_by_ref();
            }
        });
    }
    0
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::{Duration, SystemTime};

    use super::*;

    /// Everything random and every clock that a simulated process can see.
    fn observe(seed: u64) -> String {
        let seen = std::thread::spawn(move || {
            let seat = Seat::take(seed);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let order: HashMap<u32, ()> = (0..50).map(|n| (n, ())).collect();
            let order: Vec<u32> = order.into_keys().collect();
            let random: u64 = rand::random();
            let slept = runtime.spawn(async {
                let before = (tokio::time::Instant::now(), SystemTime::now());
                tokio::time::sleep(Duration::from_secs(3600)).await;
                let after = (before.0.elapsed(), before.1.elapsed().unwrap());
                format!("{after:?} {:?}", SystemTime::now())
            });
            let mut turns = 0;
            let mut now = 0;
            while !slept.is_finished() {
                now += runtime.block_on(until_idle()).unwrap_or_default();
                seat.set_now(now);
                turns += 1;
                assert!(turns < 100, "the sleep never ends");
            }
            let slept = futures::FutureExt::now_or_never(slept).unwrap().unwrap();
            format!("{order:?} {random} {slept} {}", jiff::Timestamp::now())
        });
        seen.join().unwrap()
    }

    #[test]
    fn a_seat_decides_time_and_randomness() {
        let seen = observe(7);
        assert_eq!(seen, observe(7));
        assert_ne!(seen, observe(8));
        assert!(seen.contains("2026-01-01T13:00:0"), "{seen}");
    }
}
