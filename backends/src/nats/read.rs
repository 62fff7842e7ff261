//! Reading: many messages with one question, from any number on. The server keeps nothing of a
//! reader.

use std::ops::ControlFlow;

use async_nats::{HeaderMap, Message};
use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD as STANDARD_NO_PAD};
use bytes::Bytes;
use serde_json::{Value, json};

use super::connect::{Answers, Link};
use super::links::Links;
use super::positions::SEQUENCE;
use super::publish::{ATTRIBUTES, EXPIRES, ID, KEY};
use super::{namespaces, subject};
use crate::api::pubsub::{Gap, MessageSink, Opened, Read, Start, Stored};
use crate::error::StoreError;
use crate::ids::{NamespaceId, UnixMillis};
use crate::mutation::is_expired;

/// Messages and bytes of one question's answers; they may be one message more.
const STEP_MESSAGES: usize = 500;
const STEP_BYTES: usize = 1 << 20;

/// Finds where a reader begins, as [`crate::api::pubsub::Reads::open`] says.
pub(super) async fn open(
    links: &Links,
    namespace: NamespaceId,
    start: Start,
    now: UnixMillis,
) -> Result<Opened, StoreError> {
    let link = links.acquire().await?;
    let Some(info) = namespaces::info(links, &link, namespace).await? else {
        return Err(namespaces::absent(links, &link, namespace).await);
    };
    let next = info["state"]["last_seq"].as_u64().unwrap_or(0) + 1;
    links.note_head(namespace, next);
    let reader = Reader {
        links,
        link: &link,
        namespace,
    };
    let first = |found: Option<At>| Opened::At(found.map_or(next, |at| at.number.min(next)));
    Ok(match start {
        Start::Latest => Opened::At(next),
        Start::Number(number) if number == 0 || number > next => Opened::Unknown,
        Start::Number(number) if number == next => Opened::At(next),
        Start::Number(number) => match reader.first_live(json!({"seq": 1}), now).await? {
            None => Opened::Expired(None),
            Some(oldest) if number < oldest.number => Opened::Expired(Some(oldest.time)),
            Some(_) => Opened::At(number),
        },
        Start::Earliest => first(reader.first_live(json!({"seq": 1}), now).await?),
        Start::Time(time) => first(
            reader
                .first_live(json!({"start_time": rfc3339(time)}), now)
                .await?,
        ),
    })
}

/// Takes a reader's step, as [`crate::api::pubsub::Reads::read`] says.
pub(super) async fn read(
    links: &Links,
    namespace: NamespaceId,
    next: u64,
    now: UnixMillis,
    sink: &mut impl MessageSink,
) -> Result<Read, StoreError> {
    let link = links.acquire().await?;
    let reader = Reader {
        links,
        link: &link,
        namespace,
    };
    let mut step = Step {
        next,
        missed: 0,
        oldest_left: None,
    };
    // Before the question: what another task finds out meanwhile may not be in the answers.
    let head = links.head(namespace);
    let mut answers = reader.ask(json!({"seq": next})).await?;
    let more = loop {
        match reader.next(&mut answers).await? {
            Found::Continue((message, headers)) => {
                if !step.pass(&message, &headers, now, sink)? {
                    break true;
                }
            }
            Found::Break(more) => break more,
        }
    };
    if !more {
        // What is missing at the end is gone as well.
        let end = head.max(step.next);
        step.missed += end - step.next;
        step.next = end;
    }
    links.note_head(namespace, step.next);
    Ok(Read {
        next: step.next,
        gap: (step.missed > 0).then_some(Gap {
            messages: step.missed,
            oldest_left: step.oldest_left,
        }),
        more,
    })
}

/// A message, as far as it matters where it lies.
struct At {
    number: u64,
    time: UnixMillis,
}

/// A message with its headers, or the end of the answers: whether there are more messages.
type Found = ControlFlow<bool, (Message, HeaderMap)>;

struct Reader<'r> {
    links: &'r Links,
    link: &'r Link,
    namespace: NamespaceId,
}

impl Reader<'_> {
    /// Asks for messages from a place on.
    async fn ask(&self, mut from: Value) -> Result<Answers<'_>, StoreError> {
        from["batch"] = json!(STEP_MESSAGES);
        from["max_bytes"] = json!(STEP_BYTES);
        let what = format!("$JS.API.DIRECT.GET.{}", subject::stream(self.namespace));
        self.link.ask(what, None, Bytes::from(from.to_string())).await
    }

    async fn next(&self, answers: &mut Answers<'_>) -> Result<Found, StoreError> {
        let mut message = answers.next().await?;
        let headers = message.headers.take().unwrap_or_default();
        match message.status.map(|status| status.as_u16()) {
            None => Ok(Found::Continue((message, headers))),
            Some(404) => Ok(Found::Break(false)),
            Some(204) => Ok(Found::Break(
                number(&headers, "Nats-Num-Pending").is_ok_and(|pending| pending > 0),
            )),
            Some(503) => Err(namespaces::absent(self.links, self.link, self.namespace).await),
            Some(code) => Err(StoreError::Io {
                detail: format!("nats at {}: a read is answered with {code}", self.links.address()),
            }),
        }
    }

    /// The first message from a place on that has not expired.
    async fn first_live(&self, from: Value, now: UnixMillis) -> Result<Option<At>, StoreError> {
        let mut from = from;
        loop {
            let mut last = 0;
            let mut answers = self.ask(from).await?;
            loop {
                match self.next(&mut answers).await? {
                    Found::Continue((_, headers)) => {
                        let at = at(&headers)?;
                        if !is_expired(expires_at(&headers)?, now) {
                            return Ok(Some(at));
                        }
                        last = at.number;
                    }
                    Found::Break(false) => return Ok(None),
                    Found::Break(true) => break,
                }
            }
            from = json!({"seq": last + 1});
        }
    }
}

/// A reader's step while it is taken.
struct Step {
    next: u64,
    missed: u64,
    oldest_left: Option<UnixMillis>,
}

impl Step {
    /// Passes a message. `false`: the sink has no room for it.
    fn pass(
        &mut self,
        message: &Message,
        headers: &HeaderMap,
        now: UnixMillis,
        sink: &mut impl MessageSink,
    ) -> Result<bool, StoreError> {
        let at = at(headers)?;
        self.missed += at.number.saturating_sub(self.next);
        self.next = at.number;
        if is_expired(expires_at(headers)?, now) {
            self.missed += 1;
        } else {
            if self.missed > 0 && self.oldest_left.is_none() {
                self.oldest_left = Some(at.time);
            }
            if !show(message, headers, &at, sink)? {
                return Ok(false);
            }
        }
        self.next += 1;
        Ok(true)
    }
}

/// Hands a message to the sink if it is wanted. `false`: there is no room for it.
fn show(
    message: &Message,
    headers: &HeaderMap,
    at: &At,
    sink: &mut impl MessageSink,
) -> Result<bool, StoreError> {
    let subject = text(headers, "Nats-Subject").unwrap_or_default();
    let topic = subject::topic(subject)?;
    if !sink.wants(&topic) {
        return Ok(true);
    }
    let key = subject::unescape(text(headers, KEY).unwrap_or_default())?;
    let key = String::from_utf8(key).map_err(|_| subject::unreadable(subject))?;
    let attributes = STANDARD_NO_PAD.decode(text(headers, ATTRIBUTES).unwrap_or_default());
    let attributes = attributes.map_err(|_| subject::unreadable(subject))?;
    let id = match text(headers, ID) {
        Some(id) => subject::unescape(id)?,
        // A plain client's message may have none.
        None => at.number.to_be_bytes().to_vec(),
    };
    Ok(sink.message(&Stored {
        number: at.number,
        id: &id,
        time: at.time,
        topic: &topic,
        key: &key,
        attributes: &attributes,
        payload: &message.payload,
    }))
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).map(|value| value.as_str())
}

fn number(headers: &HeaderMap, name: &str) -> Result<u64, StoreError> {
    let number = text(headers, name).and_then(|text| text.parse().ok());
    number.ok_or_else(|| subject::unreadable(name))
}

fn at(headers: &HeaderMap) -> Result<At, StoreError> {
    let time = text(headers, "Nats-Time-Stamp").and_then(millis_of);
    Ok(At {
        number: number(headers, SEQUENCE)?,
        time: time.ok_or_else(|| subject::unreadable("Nats-Time-Stamp"))?,
    })
}

fn expires_at(headers: &HeaderMap) -> Result<Option<UnixMillis>, StoreError> {
    match text(headers, EXPIRES) {
        None => Ok(None),
        Some(_) => number(headers, EXPIRES).map(|millis| Some(UnixMillis(millis))),
    }
}

const DAY_S: u64 = 86_400;

/// Days from 0000-03-01 to 1970-01-01, by the calendar of RFC 3339.
const DAYS_TO_1970: u64 = 719_468;

/// A moment as RFC 3339 writes it.
fn rfc3339(UnixMillis(millis): UnixMillis) -> String {
    // Years of four digits end then.
    let millis = millis.min(253_402_300_799_999);
    let (seconds, millis) = (millis / 1_000, millis % 1_000);
    let (year, month, day) = date_of(seconds / DAY_S);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// The moment of such a text in UTC, cut to milliseconds.
fn millis_of(text: &str) -> Option<UnixMillis> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let seconds = days_of(number(0, 4)?, number(5, 7)?, number(8, 10)?)? * DAY_S
        + number(11, 13)? * 3_600
        + number(14, 16)? * 60
        + number(17, 19)?;
    let fraction = text.get(19..)?.strip_suffix('Z')?;
    let mut millis = 0;
    let mut digits = fraction.strip_prefix('.').unwrap_or("").bytes();
    for _ in 0..3 {
        let digit = digits.next().unwrap_or(b'0');
        millis = millis * 10 + u64::from(digit.checked_sub(b'0')?);
    }
    Some(UnixMillis(seconds * 1_000 + millis))
}

/// Year, month and day of a day since 1970. Years are counted from March on, so that the leap day
/// is the last of its year.
fn date_of(day: u64) -> (u64, u64, u64) {
    let day = day + DAYS_TO_1970;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// Number of a date's day since 1970; `None` before it.
fn days_of(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = year.checked_sub(u64::from(month <= 2))?;
    let from_march = (month + 9) % 12;
    let of_year = (153 * from_march + 2) / 5 + day.checked_sub(1)?;
    let of_era = year % 400 * 365 + year % 400 / 4 - year % 400 / 100 + of_year;
    (year / 400 * 146_097 + of_era).checked_sub(DAYS_TO_1970)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn moments_are_written_and_read_as_the_server_does() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_898_853_597, "2026-11-28T20:47:33.597Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(UnixMillis(millis)), text);
            assert_eq!(millis_of(text), Some(UnixMillis(millis)));
        }
        let nanos = millis_of("2026-11-28T20:47:33.597694373Z");
        assert_eq!(nanos, Some(UnixMillis(1_795_898_853_597)));
        assert_eq!(
            millis_of("2026-11-28T20:47:33Z"),
            Some(UnixMillis(1_795_898_853_000))
        );
        assert_eq!(rfc3339(UnixMillis(u64::MAX)), "9999-12-31T23:59:59.999Z");
        for wrong in [
            "",
            "2026-11-28",
            "2026-11-28T20:47:33.5+01:00",
            "xxxx-11-28T20:47:33Z",
        ] {
            assert_eq!(millis_of(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn moments_come_back(millis in 0_u64..253_402_300_799_999) {
            prop_assert_eq!(millis_of(&rfc3339(UnixMillis(millis))), Some(UnixMillis(millis)));
        }
    }
}
