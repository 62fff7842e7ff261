//! Parts of the tests of failing servers: a load meanwhile, and its end whatever happens.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use prism_core::client::Client;

use super::log::{put, token};

/// Writes by two clients until stopped. Returns the acknowledged ids, and the number of failed
/// attempts.
pub(super) fn write_until(
    clients: [Client; 2],
    namespace: &str,
    stop: &AtomicBool,
    round: usize,
) -> (Vec<String>, usize) {
    let writer = |writer: usize, mut client: Client| {
        let (mut done, mut failed) = (Vec::new(), 0);
        for number in 0.. {
            if stop.load(Ordering::SeqCst) {
                break;
            }
            let id = format!("{round}-{writer}-{number}");
            match put(&mut client, namespace, &id, &id, Some(token(&id))) {
                Ok(_) => done.push(id),
                Err(status) => {
                    // UNAVAILABLE, or for calls sent to a hanging server DEADLINE_EXCEEDED.
                    assert!(matches!(status.code, 4 | 14), "{status:?}");
                    failed += 1;
                    thread::sleep(Duration::from_millis(2));
                }
            }
        }
        (done, failed)
    };
    thread::scope(|scope| {
        let [first, second] = clients;
        let others = [
            scope.spawn(|| writer(0, first)),
            scope.spawn(|| writer(1, second)),
        ];
        let (mut all, mut failed) = (Vec::new(), 0);
        for other in others {
            let (done, own) = other.join().expect("a writer");
            all.extend(done);
            failed += own;
        }
        (all, failed)
    })
}

/// Something to be done at the end of a scope.
pub(super) struct OnDrop<F: FnMut()>(pub(super) F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
