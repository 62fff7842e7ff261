//! The queue between threads: to a receiver that is awake, and a round trip between two threads
//! that sleep in between.
#![allow(missing_docs)]

use std::{hint::black_box, sync::Arc, thread, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use prism_core::runtime::mailbox::{Mailbox, Waker};

/// A message of the size of a job.
type Message = [u64; 16];

fn awake(criterion: &mut Criterion) {
    let mailbox = Mailbox::<Message>::new(1_024, Waker::for_thread());
    criterion.bench_function("mailbox, receiver awake", |bencher| {
        bencher.iter(|| {
            mailbox.send(black_box([7; 16])).expect("room");
            mailbox.receive()
        });
    });
}

fn there_and_back(criterion: &mut Criterion) {
    let (to_echo, to_us) = (Waker::for_thread(), Waker::for_thread());
    let there = Arc::new(Mailbox::<Message>::new(8, to_echo.clone()));
    let back = Arc::new(Mailbox::<Message>::new(8, to_us.clone()));
    let echo = {
        let (there, back) = (there.clone(), back.clone());
        thread::spawn(move || {
            loop {
                match there.receive() {
                    Some([0, ..]) => return,
                    Some(message) => back.send(message).expect("one message at a time"),
                    None => to_echo.wait_blocking(Some(Duration::from_secs(10)), || !there.is_empty()),
                }
            }
        })
    };
    criterion.bench_function("mailbox, there and back, both asleep", |bencher| {
        bencher.iter(|| {
            there.send([7; 16]).expect("one message at a time");
            loop {
                if let Some(message) = back.receive() {
                    return message;
                }
                to_us.wait_blocking(Some(Duration::from_secs(10)), || !back.is_empty());
            }
        });
    });
    there.send([0; 16]).expect("room");
    echo.join().expect("the echo ends");
}

criterion_group!(benches, awake, there_and_back);
criterion_main!(benches);
