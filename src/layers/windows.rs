//! [`Windows`]: the memory of all zstd windows together.

use std::sync::{Condvar, Mutex, PoisonError};

/// The smallest share. Images are built with windows of up to 8 MiB; with this share a layer of many frames is given a
/// larger one a few times at the most.
const SHARE_MIN: u64 = 8 << 20;

/// Memory that is shared out among threads, first come, first served: nobody waits for ever.
pub struct Windows {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    free: u64,
    next: u64,
    turn: u64,
}

/// A share, until it is dropped.
pub(super) struct Share<'w> {
    windows: &'w Windows,
    size: u64,
}

impl Windows {
    /// Room for `size` bytes.
    pub fn new(size: u64) -> Self {
        Windows { state: Mutex::new(State { free: size, next: 0, turn: 0 }), changed: Condvar::new() }
    }

    /// The share that a window of `window` bytes takes.
    pub(super) fn share_of(window: u64) -> u64 {
        window.max(SHARE_MIN).checked_next_power_of_two().unwrap_or(u64::MAX)
    }

    /// Waits for a share for a window of this size, which must not be larger than all of the room. Whoever calls this
    /// holds no other share: two that hold one and want more would wait for each other.
    pub(super) fn take(&self, window: u64) -> Share<'_> {
        let size = Self::share_of(window);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let ticket = state.next;
        state.next += 1;
        let not_yet = |state: &mut State| state.turn != ticket || state.free < size;
        let mut state = self.changed.wait_while(state, not_yet).unwrap_or_else(PoisonError::into_inner);
        state.turn += 1;
        state.free -= size;
        drop(state);
        self.changed.notify_all();
        Share { windows: self, size }
    }
}

impl Share<'_> {
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.windows.state.lock().unwrap_or_else(PoisonError::into_inner).free += self.size;
        self.windows.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::layers::WINDOWS_MAX;

    #[test]
    fn shares_never_add_up_to_more_than_there_is() {
        let (windows, held) = (Windows::new(WINDOWS_MAX), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for thread in 0..8_u64 {
                let (windows, held) = (&windows, &held);
                scope.spawn(move || {
                    for round in 0..50 {
                        let share = windows.take(1 << (20 + (thread + round) % 8));
                        assert!(held.fetch_add(share.size(), Ordering::SeqCst) + share.size() <= WINDOWS_MAX);
                        held.fetch_sub(share.size(), Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(windows.take(WINDOWS_MAX).size(), WINDOWS_MAX, "all of it came back");
    }
}
