//! The death of a process between any two of its actions: writes to the API, and calls that make or delete volumes.

use std::sync::Arc;

use parking_lot::Mutex;

/// Which side of an action the process dies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    Before,
    /// It is done, but the process never learns of it.
    After,
}

#[derive(Default)]
struct State {
    at: Option<(usize, Moment)>,
    begun: usize,
    is_dead: bool,
}

/// Counts actions, and lets one of them, and all later ones, hang for ever. Cheap to clone.
#[derive(Clone, Default)]
pub struct Crash {
    state: Arc<Mutex<State>>,
}

impl Crash {
    /// The `number`th action from now on, counted from 1, is the last.
    pub fn arm(&self, number: usize, moment: Moment) {
        *self.state.lock() = State {
            at: Some((number, moment)),
            ..State::default()
        };
    }

    pub fn disarm(&self) {
        *self.state.lock() = State::default();
    }

    pub fn is_dead(&self) -> bool {
        self.state.lock().is_dead
    }

    /// An action begins; its number.
    pub async fn begin(&self, is_action: bool) -> Option<usize> {
        let hangs = {
            let mut state = self.state.lock();
            if !is_action || state.at.is_none() {
                return None;
            }
            state.begun += 1;
            state.is_dead |= state.at == Some((state.begun, Moment::Before));
            if state.is_dead { None } else { Some(state.begun) }
        };
        match hangs {
            Some(number) => Some(number),
            None => std::future::pending().await,
        }
    }

    /// An action has been done.
    pub async fn end(&self, number: Option<usize>) {
        let hangs = {
            let mut state = self.state.lock();
            let Some(number) = number.filter(|_| state.at.is_some()) else {
                return;
            };
            state.is_dead |= state.at == Some((number, Moment::After));
            state.is_dead
        };
        if hangs {
            std::future::pending().await
        }
    }
}
