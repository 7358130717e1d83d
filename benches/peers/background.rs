//! Work beside a measurement, on a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// Runs until it is stopped, or dropped.
pub struct Background<T> {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<T>>,
}

/// Checked by the thread itself, again and again.
pub struct Over(Arc<AtomicBool>);

impl Over {
    pub fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl<T: Send + 'static> Background<T> {
    pub fn start(run: impl FnOnce(&Over) -> T + Send + 'static) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let told = Over(Arc::clone(&over));
        Background {
            over,
            thread: Some(thread::spawn(move || run(&told))),
        }
    }
}

impl<T> Background<T> {
    /// Waits for its end. A panic, which has been printed, is ignored.
    pub fn end(mut self) -> Option<T> {
        self.join()
    }

    fn join(&mut self) -> Option<T> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take()?.join().ok()
    }
}

impl<T> Drop for Background<T> {
    fn drop(&mut self) {
        self.join();
    }
}
