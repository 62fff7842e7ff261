//! Topics: they are made, described, changed and deleted, and asked where they begin and end.

use std::rc::Rc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ConfigResource, ConfigSource, NewTopic};
use rdkafka::admin::{ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::Offset;
use rdkafka::types::RDKafkaErrorCode;

use super::config::Config;
use super::link::{ANSWER_MAX, Link};
use crate::error::StoreError;
use crate::ids::UnixMillis;

/// The results of a request, for each object.
type Results<T> = Result<Vec<Result<T, (String, RDKafkaErrorCode)>>, KafkaError>;

/// Whether an error says that there is no such topic.
pub(super) fn is_absent(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopicId
    )
}

/// The first offset that is left, and the one after the last; `None` without the topic.
pub(super) async fn find_watermarks(link: &Link, topic: &str) -> Result<Option<(u64, u64)>, StoreError> {
    let name = topic.to_owned();
    let asked = link
        .ask(move |consumer| consumer.fetch_watermarks(&name, 0, ANSWER_MAX))
        .await;
    let number = |offset: i64| u64::try_from(offset).unwrap_or(0);
    match asked {
        Ok((low, high)) => Ok(Some((number(low), number(high)))),
        Err(error) if error.rdkafka_error_code().is_some_and(is_absent) => Ok(None),
        Err(error) => Err(link.failed(&error)),
    }
}

/// Likewise of a topic that is there.
pub(super) async fn watermarks(link: &Link, topic: &str) -> Result<(u64, u64), StoreError> {
    find_watermarks(link, topic)
        .await?
        .ok_or_else(|| StoreError::Unreachable {
            detail: format!("kafka: topic {topic} is not there"),
        })
}

/// Offset of the first message that was stored at a time or later; `None` if there is none.
pub(super) async fn offset_at(link: &Link, topic: &str, time: UnixMillis) -> Result<Option<u64>, StoreError> {
    let name = topic.to_owned();
    // Brokers take no time beyond the end of theirs.
    let time = i64::try_from(time.0).unwrap_or(i64::MAX).min(i64::MAX / 2);
    let asked = link
        .ask(move |consumer| {
            let mut place = TopicPartitionList::new();
            place.add_partition_offset(&name, 0, Offset::Offset(time))?;
            let found = consumer.offsets_for_times(place, ANSWER_MAX)?;
            let found = found.elements().first().map(|place| {
                place.error()?;
                Ok(place.offset())
            });
            found.transpose()
        })
        .await;
    match asked {
        Ok(Some(Offset::Offset(offset))) => Ok(u64::try_from(offset).ok()),
        Ok(_) => Ok(None),
        Err(error) => Err(link.failed(&error)),
    }
}

/// Partitions of a topic; 0 without it.
pub(super) async fn partitions(link: &Link, topic: &str) -> Result<usize, StoreError> {
    let metadata = link.metadata(topic, ANSWER_MAX).await?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    Ok(found
        .filter(|found| found.error().is_none())
        .map_or(0, |found| found.partitions().len()))
}

/// Copies of a topic's messages.
pub(super) async fn replicas(link: &Link, topic: &str) -> Result<usize, StoreError> {
    let metadata = link.metadata(topic, ANSWER_MAX).await?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let partition = found.and_then(|found| found.partitions().first());
    Ok(partition.map_or(0, |partition| partition.replicas().len()))
}

/// Numbers of the brokers.
pub(super) async fn brokers(link: &Link, topic: &str) -> Result<Vec<i32>, StoreError> {
    let metadata = link.metadata(topic, ANSWER_MAX).await?;
    Ok(metadata
        .brokers()
        .iter()
        .map(rdkafka::metadata::MetadataBroker::id)
        .collect())
}

/// Makes a topic of one partition, and waits until the brokers know it; one that is there stays.
pub(super) async fn create(
    config: &Config,
    link: &Rc<Link>,
    topic: &str,
    settings: &[(&'static str, String)],
) -> Result<(), StoreError> {
    let (name, settings) = (topic.to_owned(), settings.to_vec());
    let made = admin(config, move |admin, options| {
        // As many copies as the brokers' default.replication.factor says.
        let mut wanted = NewTopic::new(&name, 1, TopicReplication::Fixed(-1));
        for (key, value) in &settings {
            wanted = wanted.set(key, value);
        }
        block_on(admin.create_topics([&wanted], options))
    })
    .await;
    match one(made) {
        Ok(()) | Err(RDKafkaErrorCode::TopicAlreadyExists) => {}
        Err(code) => return Err(refused(config, topic, code)),
    }
    let begun = tokio::time::Instant::now();
    while find_watermarks(link, topic).await?.is_none() {
        if begun.elapsed() > ANSWER_MAX {
            return Err(StoreError::Unreachable {
                detail: format!(
                    "kafka at {}: topic {topic} was made and does not come up",
                    config.address
                ),
            });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Deletes a topic, if it is there.
pub(super) async fn delete(config: &Config, topic: &str) -> Result<(), StoreError> {
    let name = topic.to_owned();
    let gone = admin(config, move |admin, options| {
        block_on(admin.delete_topics(&[&name], options))
    })
    .await;
    match one(gone) {
        Err(code) if !is_absent(code) => Err(refused(config, topic, code)),
        _ => Ok(()),
    }
}

/// The settings of a topic, the brokers' defaults included.
pub(super) async fn describe(config: &Config, topic: &str) -> Result<ConfigResource, StoreError> {
    let name = topic.to_owned();
    let found = admin(config, move |admin, options| {
        block_on(admin.describe_configs([&ResourceSpecifier::Topic(&name)], options))
    });
    described(config, topic, found.await)
}

/// The settings of a broker.
pub(super) async fn describe_broker(config: &Config, broker: i32) -> Result<ConfigResource, StoreError> {
    let found = admin(config, move |admin, options| {
        block_on(admin.describe_configs([&ResourceSpecifier::Broker(broker)], options))
    });
    described(config, &format!("broker {broker}"), found.await)
}

/// Changes settings of a topic. Those that others have set stay as they are.
pub(super) async fn alter(
    config: &Config,
    topic: &str,
    settings: &[(&'static str, String)],
) -> Result<(), StoreError> {
    let found = describe(config, topic).await?;
    let is_set =
        |name: &str, value: &str| found.get(name).and_then(|entry| entry.value.as_deref()) == Some(value);
    if settings.iter().all(|(name, value)| is_set(name, value)) {
        return Ok(());
    }
    let own = found
        .entries
        .into_iter()
        .filter(|entry| entry.source == ConfigSource::DynamicTopic);
    let mut all: Vec<(String, String)> = own.filter_map(|entry| Some((entry.name, entry.value?))).collect();
    all.retain(|(name, _)| settings.iter().all(|(changed, _)| name != changed));
    all.extend(
        settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone())),
    );
    let name = topic.to_owned();
    let changed = admin(config, move |admin, options| {
        let mut wanted = AlterConfig::new(ResourceSpecifier::Topic(&name));
        for (key, value) in &all {
            wanted = wanted.set(key, value);
        }
        block_on(admin.alter_configs([&wanted], options))
    })
    .await;
    let nameless = |(_, code)| (String::new(), code);
    let changed = changed.map(|all| {
        let all = all.into_iter();
        all.map(|one| one.map(|_| String::new()).map_err(nameless))
            .collect()
    });
    one(changed).map_err(|code| refused(config, topic, code))
}

fn described(
    config: &Config,
    what: &str,
    found: Result<Vec<Result<ConfigResource, RDKafkaErrorCode>>, KafkaError>,
) -> Result<ConfigResource, StoreError> {
    let code = match found.map(|mut found| found.pop()) {
        Ok(Some(Ok(resource))) => return Ok(resource),
        Ok(Some(Err(code))) => code,
        Ok(None) => RDKafkaErrorCode::Unknown,
        Err(error) => error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown),
    };
    Err(refused(config, what, code))
}

/// The result of a request about one topic.
fn one(results: Results<String>) -> Result<(), RDKafkaErrorCode> {
    match results {
        Ok(results) => results
            .into_iter()
            .next()
            .map_or(Ok(()), |one| one.map(drop).map_err(|(_, code)| code)),
        Err(error) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown)),
    }
}

fn refused(config: &Config, what: &str, code: RDKafkaErrorCode) -> StoreError {
    let detail = format!("kafka at {}: {what}: {code}", config.address);
    match code {
        RDKafkaErrorCode::TopicAuthorizationFailed
        | RDKafkaErrorCode::ClusterAuthorizationFailed
        | RDKafkaErrorCode::InvalidReplicationFactor
        | RDKafkaErrorCode::InvalidConfig
        | RDKafkaErrorCode::PolicyViolation => StoreError::Unopenable { detail },
        _ => StoreError::Unreachable { detail },
    }
}

/// Runs a request of an administrator on a thread that may wait, with a client that ends with it:
/// such requests are rare.
async fn admin<T: Send + 'static>(
    config: &Config,
    request: impl FnOnce(&AdminClient<DefaultClientContext>, &AdminOptions) -> Result<T, KafkaError>
    + Send
    + 'static,
) -> Result<T, KafkaError> {
    let client = config.client();
    let asked = tokio::task::spawn_blocking(move || {
        let admin: AdminClient<DefaultClientContext> = client.create()?;
        let options = AdminOptions::new()
            .request_timeout(Some(ANSWER_MAX))
            .operation_timeout(Some(ANSWER_MAX));
        request(&admin, &options)
    });
    asked.await.unwrap_or(Err(KafkaError::Canceled))
}

/// Waits for an answer, which a thread of the client brings.
fn block_on<T>(answer: impl Future<Output = T>) -> T {
    tokio::runtime::Handle::current().block_on(answer)
}
