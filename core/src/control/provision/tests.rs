//! The table of actions and findings, on a real SQLite store whose writer runs in the test.

use std::{
    sync::mpsc::{TryRecvError, channel},
    thread,
};

use prism_backends::sqlite::{self, Writer};

use super::*;
use crate::{
    call::job::{ProvisionStep, WriterMessage},
    runtime::mailbox::Waker,
};

/// Runs provisioning against a store in a temporary directory.
fn with_store(test: impl FnOnce(&mut Provisioning) + Send) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("store.db");
    let mut parts = sqlite::open(&path, sqlite::Options::default()).expect("a store");
    let waker = Waker::for_thread();
    let mailbox = Arc::new(Mailbox::new(16, waker.clone()));
    let provisioner = Sqlite::new(mailbox.clone(), Arc::default());
    let (mut provisioning, _link) =
        Provisioning::new(Box::new(provisioner), None, &Inbox::new(1), Arc::default());
    let (ended, end) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            test(&mut provisioning);
            drop(ended);
        });
        while end.try_recv() != Err(TryRecvError::Disconnected) {
            while let Some(message) = mailbox.receive() {
                answer(&mut parts.writer, message);
            }
            waker.wait_blocking(Some(STOP_POLL), || !mailbox.is_empty());
        }
    });
}

fn answer(writer: &mut Writer, message: WriterMessage) {
    let WriterMessage::Provision(id, step, done) = message else {
        panic!("{message:?}");
    };
    let result = match step {
        ProvisionStep::Inspect => Ok(()),
        ProvisionStep::Create { .. } => writer.create_namespace(id),
        ProvisionStep::Drop => writer.drop_namespace(id),
    };
    let _ = done.send(result.map(|()| writer.presence(id)));
}

fn object(id: u32) -> Object {
    Object {
        id: NamespaceId(id),
        name: format!("namespace-{id}"),
        durability: Durability::BestEffort,
        message_bytes_max: 0,
        life_ms: None,
    }
}

/// The reason of a refusal; empty for what was done.
fn outcome(provisioning: &mut Provisioning, action: Action, id: u32) -> String {
    match provisioning.carry_out(action, &object(id)) {
        Ok(()) => String::new(),
        Err(Fault::Refused(status)) => status.reason().unwrap_or_default(),
        Err(Fault::Retry(sentence)) => format!("again: {sentence}"),
    }
}

#[test]
fn every_step_may_be_repeated_and_a_number_is_never_used_again() {
    with_store(|provisioning| {
        let mut outcome = |action, id| outcome(provisioning, action, id);
        assert_eq!(outcome(Action::Update, 1), "STORE_OBJECT_MISSING");
        for action in [Action::Create, Action::Update, Action::Delete] {
            assert_eq!(
                (outcome(action, 1), outcome(action, 1)),
                (String::new(), String::new())
            );
        }
        assert_eq!(outcome(Action::Create, 1), "STORE_OBJECT_FOREIGN");
        assert_eq!(outcome(Action::Update, 1), "STORE_OBJECT_MISSING");
        assert_eq!(outcome(Action::Delete, 2), "", "a create that never came so far");
    });
}

#[test]
fn a_store_that_does_not_answer_is_tried_again() {
    let stop = Arc::new(AtomicBool::new(true));
    let mailbox = Arc::new(Mailbox::new(1, Waker::for_thread()));
    let provisioner = Sqlite::new(mailbox, stop);
    let (mut provisioning, _link) =
        Provisioning::new(Box::new(provisioner), None, &Inbox::new(1), Arc::default());
    assert!(outcome(&mut provisioning, Action::Create, 1).contains("it does not answer"));
    assert!(outcome(&mut provisioning, Action::Create, 1).contains("its mailbox is full"));
}
