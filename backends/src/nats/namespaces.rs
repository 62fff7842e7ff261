//! Streams: the one of the catalog's mark, and one for each namespace.
//!
//! A stream's metadata hold the catalog that numbers the namespaces. A stream with another one is
//! never touched. What an operator may have changed in a stream is compared with what a namespace
//! needs when it is made, and when it is asked for.

use serde_json::{Value, json};

use super::connect::{Fault, Link, NAME_IN_USE, STREAM_NOT_FOUND};
use super::links::Links;
use super::positions;
use super::subject;
use crate::api::pubsub::ID_WINDOW_MS;
use crate::error::StoreError;
use crate::ids::NamespaceId;
use crate::sqlite::Presence;

/// Names of the metadata.
const CATALOG: &str = "prism-catalog";
const LAYOUT_NAME: &str = "prism-layout";

/// Layout of the streams that this program writes.
const LAYOUT: &str = "1";

/// Makes the stream of the mark; false if another catalog has made it.
pub(super) async fn prepare(links: &Links, catalog: u128) -> Result<bool, StoreError> {
    let link = links.acquire().await?;
    let mut config = stream_config(subject::OWN, subject::OWN_SUBJECTS, catalog);
    // The last position of each lane is enough.
    config["max_msgs_per_subject"] = json!(1);
    let marked = ensure(links, &link, &config).await?;
    let layout = metadata(&marked, LAYOUT_NAME).unwrap_or_default();
    if layout != LAYOUT {
        return Err(StoreError::WrongFormat {
            detail: format!(
                "nats at {}: stream {} has layout {layout:?}, this program knows {LAYOUT}. Use a newer one",
                links.address(),
                subject::OWN
            ),
        });
    }
    let is_ours = metadata(&marked, CATALOG) == Some(&*text_of(catalog));
    if is_ours {
        links.catalog.set(Some(catalog));
    }
    Ok(is_ours)
}

/// State of a namespace's number.
pub(super) async fn presence(links: &Links, namespace: NamespaceId) -> Result<Presence, StoreError> {
    let link = links.acquire().await?;
    if is_dropped(&link, namespace).await? {
        return Ok(Presence::Dropped);
    }
    let Some(info) = info(links, &link, namespace).await? else {
        return Ok(Presence::Absent);
    };
    Ok(match is_ours(links, &info["config"]) {
        true => Presence::Live,
        false => Presence::Foreign,
    })
}

/// Makes a namespace's stream.
pub(super) async fn create(links: &Links, namespace: NamespaceId) -> Result<(), StoreError> {
    let link = links.acquire().await?;
    if is_dropped(&link, namespace).await? {
        return Err(StoreError::DroppedNamespace(namespace));
    }
    let catalog = links.catalog.get().ok_or_else(|| StoreError::Internal {
        detail: "a stream was asked for before the store was prepared".to_owned(),
    })?;
    let (name, subjects) = (subject::stream(namespace), subject::all(namespace));
    let wanted = stream_config(&name, &subjects, catalog);
    let found = ensure(links, &link, &wanted).await?;
    if !is_ours(links, &found) {
        return Err(StoreError::Unopenable {
            detail: format!("nats at {}: stream {name} is not this gateway's", links.address()),
        });
    }
    match changed_setting(&wanted, &found) {
        None => Ok(()),
        Some(setting) => Err(StoreError::Unopenable {
            detail: format!(
                "nats at {}: stream {name} has {setting} {}, and needs {}; change it back, or remove the stream",
                links.address(),
                found[setting],
                wanted[setting]
            ),
        }),
    }
}

/// Removes a namespace's stream, and notes that its number was used.
pub(super) async fn remove(links: &Links, namespace: NamespaceId) -> Result<(), StoreError> {
    let link = links.acquire().await?;
    positions::write(links, &link, subject::dropped(namespace), "dropped").await?;
    let Some(info) = info(links, &link, namespace).await? else {
        return Ok(());
    };
    if !is_ours(links, &info["config"]) {
        return Ok(());
    }
    let what = format!("STREAM.DELETE.{}", subject::stream(namespace));
    match Fault::of(&link.call(&what, &json!({})).await?) {
        Some(fault) if fault.number != STREAM_NOT_FOUND => Err(fault.into_store(links.address())),
        _ => Ok(()),
    }
}

/// The error of a namespace that has no stream.
pub(super) async fn absent(links: &Links, link: &Link, namespace: NamespaceId) -> StoreError {
    match is_dropped(link, namespace).await {
        Err(error) => error,
        Ok(true) => StoreError::DroppedNamespace(namespace),
        Ok(false) => match info(links, link, namespace).await {
            Err(error) => error,
            Ok(None) => StoreError::UnknownNamespace(namespace),
            // It is there and does not answer: the server has not opened it yet.
            Ok(Some(_)) => StoreError::Unreachable {
                detail: format!(
                    "nats at {}: stream {} does not answer",
                    links.address(),
                    subject::stream(namespace)
                ),
            },
        },
    }
}

/// Configuration and state of a namespace's stream; `None` if there is none.
pub(super) async fn info(
    links: &Links,
    link: &Link,
    namespace: NamespaceId,
) -> Result<Option<Value>, StoreError> {
    let what = format!("STREAM.INFO.{}", subject::stream(namespace));
    let answer = link.call(&what, &json!({})).await?;
    match Fault::of(&answer) {
        None => Ok(Some(answer)),
        Some(fault) if fault.number == STREAM_NOT_FOUND => Ok(None),
        Some(fault) => Err(fault.into_store(links.address())),
    }
}

async fn is_dropped(link: &Link, namespace: NamespaceId) -> Result<bool, StoreError> {
    let mark = positions::last(link, subject::OWN, &subject::dropped(namespace)).await?;
    Ok(mark.is_some())
}

/// Makes a stream; returns the configuration of the one that is there then.
async fn ensure(links: &Links, link: &Link, config: &Value) -> Result<Value, StoreError> {
    let name = config["name"].as_str().unwrap_or_default();
    let answer = link.call(&format!("STREAM.CREATE.{name}"), config).await?;
    let answer = match Fault::of(&answer) {
        Some(fault) if fault.number == NAME_IN_USE => {
            link.call(&format!("STREAM.INFO.{name}"), &json!({})).await?
        }
        _ => answer,
    };
    match Fault::of(&answer) {
        None => Ok(answer["config"].clone()),
        Some(fault) => Err(fault.into_store(links.address())),
    }
}

/// Settings without which a namespace's promises do not hold.
const SETTINGS: [&str; 10] = [
    // Reads may ask any replica, also one that lacks the latest messages.
    "num_replicas",
    "storage",
    "retention",
    "discard",
    "subjects",
    "allow_direct",
    "allow_msg_ttl",
    "allow_atomic",
    "duplicate_window",
    "max_msgs_per_subject",
];

/// The first of them that is another one.
fn changed_setting(wanted: &Value, found: &Value) -> Option<&'static str> {
    SETTINGS.into_iter().find(|name| wanted[*name] != found[*name])
}

fn stream_config(name: &str, subjects: &str, catalog: u128) -> Value {
    json!({
        "name": name,
        "subjects": [subjects],
        "num_replicas": 1,
        "storage": "file",
        "retention": "limits",
        // A full stream refuses new messages; it does not lose old ones.
        "discard": "new",
        "max_msgs_per_subject": -1,
        "allow_direct": true,
        "allow_msg_ttl": true,
        "allow_atomic": true,
        "duplicate_window": ID_WINDOW_MS * 1_000_000,
        "metadata": {CATALOG: text_of(catalog), LAYOUT_NAME: LAYOUT},
    })
}

fn text_of(catalog: u128) -> String {
    format!("{catalog:032x}")
}

fn metadata<'v>(config: &'v Value, name: &str) -> Option<&'v str> {
    config["metadata"][name].as_str()
}

fn is_ours(links: &Links, config: &Value) -> bool {
    let catalog = links.catalog.get().map(text_of);
    catalog.is_some() && metadata(config, CATALOG) == catalog.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_somebody_has_changed_is_found() {
        let wanted = stream_config("PRISM-7", "prism.7.>", 1);
        assert_eq!(changed_setting(&wanted, &wanted), None);
        for name in SETTINGS {
            let mut found = wanted.clone();
            found[name] = json!("other");
            assert_eq!(changed_setting(&wanted, &found), Some(name));
        }
        let mut found = wanted.clone();
        found["max_bytes"] = json!(1_000_000);
        assert_eq!(changed_setting(&wanted, &found), None, "an operator may bound it");
    }
}
