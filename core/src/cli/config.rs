//! `prism config print`: what `prism serve` with the same flags and environment would run with, and
//! where each value comes from.

use clap::Subcommand;
use prism_core::config::KEYS;
use serde_json::{Map, Value, json};

use super::Failure;
use super::output::Printer;
use super::serve::{ServeArgs, effective};

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print the effective configuration, as a file that `serve --config` reads
    Print(ServeArgs),
}

pub(super) fn run(command: &ConfigCommand, printer: &mut Printer) -> Result<(), Failure> {
    let ConfigCommand::Print(args) = command;
    let effective = effective(args)?;
    if !printer.is_json() {
        return printer.raw(effective.to_yaml().as_bytes());
    }
    let mut keys = Map::new();
    for (key, origin) in KEYS.iter().zip(&effective.origins) {
        let value = (key.show)(&effective.options);
        keys.insert(
            key.path.to_owned(),
            json!({ "value": value, "origin": origin.to_string(), "env": key.env }),
        );
    }
    let stores = effective.options.stores.iter().map(|store| {
        let written = store.written().map(|(key, value)| (key.to_owned(), json!(value)));
        (store.name.clone(), Value::Object(written.collect()))
    });
    keys.insert("stores".to_owned(), Value::Object(stores.collect()));
    printer.json(&Value::Object(keys))
}
