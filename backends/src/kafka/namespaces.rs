//! The topic of the marks and that of each namespace: they are made, told apart from those of
//! others, and removed.

use std::rc::Rc;
use std::time::Duration;

use super::cluster::Cluster;
use super::config::MESSAGE_BYTES_MAX;
use super::link::Link;
use super::marks::{self, CATALOG, State};
use super::settings::Settings;
use super::topics;
use crate::error::StoreError;
use crate::ids::NamespaceId;
use crate::sqlite::Presence;

/// Makes the topic of the marks; false if another catalog has made it.
pub(super) async fn prepare(cluster: &Cluster, catalog: u128) -> Result<bool, StoreError> {
    let link = cluster.acquire().await?;
    let settings = [("cleanup.policy", "compact".to_owned())];
    if topics::partitions(&link, cluster.own()).await? == 0 {
        topics::create(cluster.config(), &link, cluster.own(), &settings).await?;
    }
    let own = format!("{catalog:032x}");
    let mut marks = cluster.marks.lock().await;
    marks.refresh(&link).await?;
    if marks.get(CATALOG).is_none() {
        marks.write(&link, CATALOG, &own).await?;
        marks.refresh(&link).await?;
    }
    let found = marks.get(CATALOG).unwrap_or_default().to_owned();
    if found != own {
        return Ok(false);
    }
    drop(marks);
    cluster.catalog.set(Some(catalog));
    cluster.settings.set(Some(Settings::read(cluster, &link).await?));
    Ok(true)
}

/// State of a namespace's number.
pub(super) async fn presence(cluster: &Cluster, namespace: NamespaceId) -> Result<Presence, StoreError> {
    let link = cluster.acquire().await?;
    let state = marks::state(cluster, &link, namespace, true).await?;
    if state == State::Dropped {
        return Ok(Presence::Dropped);
    }
    let is_there = topics::partitions(&link, &cluster.topic(namespace)).await? > 0;
    Ok(match (is_there, state) {
        (false, _) => Presence::Absent,
        (true, State::Unknown) => Presence::Foreign,
        (true, _) => Presence::Live,
    })
}

/// Makes a namespace's topic.
pub(super) async fn create(cluster: &Cluster, namespace: NamespaceId) -> Result<(), StoreError> {
    let link = cluster.acquire().await?;
    let topic = cluster.topic(namespace);
    let state = marks::state(cluster, &link, namespace, true).await?;
    let partitions = topics::partitions(&link, &topic).await?;
    match state {
        State::Dropped => return Err(StoreError::DroppedNamespace(namespace)),
        State::Unknown if partitions > 0 => {
            return Err(unopenable(
                cluster,
                &format!("topic {topic} is not this gateway's"),
            ));
        }
        State::Unknown => marks::set_state(cluster, &link, namespace, State::Making).await?,
        State::Making | State::Live => {}
    }
    if partitions == 0 {
        topics::create(cluster.config(), &link, &topic, &wanted()).await?;
    }
    check(cluster, &link, &topic).await?;
    match state {
        State::Live => Ok(()),
        _ => marks::set_state(cluster, &link, namespace, State::Live).await,
    }
}

/// Makes the broker keep a namespace's messages for this long; `None` is for ever.
pub(super) async fn retain(
    cluster: &Cluster,
    namespace: NamespaceId,
    retention: Option<Duration>,
) -> Result<(), StoreError> {
    topics::alter(cluster.config(), &cluster.topic(namespace), &times(retention)).await
}

/// Removes a namespace's topic, and notes that its number was used.
pub(super) async fn remove(cluster: &Cluster, namespace: NamespaceId) -> Result<(), StoreError> {
    let link = cluster.acquire().await?;
    let state = marks::state(cluster, &link, namespace, true).await?;
    if state != State::Dropped {
        marks::set_state(cluster, &link, namespace, State::Dropped).await?;
    }
    cluster.forget(namespace);
    match state {
        // What this gateway has not made stays.
        State::Unknown => Ok(()),
        _ => topics::delete(cluster.config(), &cluster.topic(namespace)).await,
    }
}

/// The error of a namespace that has no topic.
pub(super) async fn absent(cluster: &Cluster, link: &Rc<Link>, namespace: NamespaceId) -> StoreError {
    match marks::state(cluster, link, namespace, true).await {
        Err(error) => error,
        Ok(State::Dropped) => StoreError::DroppedNamespace(namespace),
        Ok(State::Unknown | State::Making) => StoreError::UnknownNamespace(namespace),
        Ok(State::Live) => StoreError::Unreachable {
            detail: format!(
                "kafka at {}: topic {} is not there",
                cluster.address(),
                cluster.topic(namespace)
            ),
        },
    }
}

/// Settings of a namespace's topic without which its promises do not hold.
fn wanted() -> Vec<(&'static str, String)> {
    vec![
        ("cleanup.policy", "delete".to_owned()),
        // Times never fall, whatever the clocks of gateways say.
        ("message.timestamp.type", "LogAppendTime".to_owned()),
        ("max.message.bytes", MESSAGE_BYTES_MAX.to_owned()),
    ]
}

/// Least and longest time after which a broker begins a new file: it removes whole files only.
const FILE_MS_MIN: u128 = 600_000;
const FILE_MS_MAX: u128 = 86_400_000;

fn times(retention: Option<Duration>) -> Vec<(&'static str, String)> {
    let kept = retention.map_or(-1, |time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
    let tenth = retention.map_or(FILE_MS_MAX, |time| time.as_millis() / 10);
    vec![
        ("retention.ms", kept.to_string()),
        ("retention.bytes", "-1".to_owned()),
        ("segment.ms", tenth.clamp(FILE_MS_MIN, FILE_MS_MAX).to_string()),
    ]
}

/// Refuses a topic that somebody has changed.
async fn check(cluster: &Cluster, link: &Rc<Link>, topic: &str) -> Result<(), StoreError> {
    let partitions = topics::partitions(link, topic).await?;
    if partitions != 1 {
        let what = format!("topic {topic} has {partitions} partitions, and needs 1; remove the topic");
        return Err(unopenable(cluster, &what));
    }
    let found = topics::describe(cluster.config(), topic).await?;
    for (name, value) in wanted() {
        let is = found
            .get(name)
            .and_then(|entry| entry.value.as_deref())
            .unwrap_or_default();
        if is != value {
            let what = format!(
                "topic {topic} has {name} {is}, and needs {value}; change it back, or remove the topic"
            );
            return Err(unopenable(cluster, &what));
        }
    }
    Ok(())
}

fn unopenable(cluster: &Cluster, what: &str) -> StoreError {
    StoreError::Unopenable {
        detail: format!("kafka at {}: {what}", cluster.address()),
    }
}
