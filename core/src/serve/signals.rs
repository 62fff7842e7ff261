//! The signals of the process.

use std::{sync::mpsc::SyncSender, thread};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

use super::{Event, ServeError, failed};

/// Catches the signals from now on.
pub(super) fn watch() -> Result<Signals, ServeError> {
    Signals::new([SIGTERM, SIGINT]).map_err(|cause| failed("cannot watch signals", &cause))
}

/// Starts the thread that obeys them: the first drains, the second ends the process at once.
pub(super) fn obey(mut signals: Signals, events: SyncSender<Event>) -> Result<(), ServeError> {
    let obey = move || {
        let mut asked = false;
        for signal in signals.forever() {
            if asked {
                tracing::warn!(signal, "second signal: ending without a drain");
                std::process::exit(1);
            }
            asked = true;
            tracing::info!(signal, "draining");
            // The server has ended already when nobody receives this.
            let _ = events.send(Event::Stop);
        }
    };
    thread::Builder::new()
        .name("prism-signals".to_owned())
        .spawn(obey)
        .map(drop)
        .map_err(|cause| failed("cannot start a thread", &cause))
}
