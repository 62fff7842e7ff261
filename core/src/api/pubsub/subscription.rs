//! A subscription as the source of a stream: it asks each of its places for the messages that come
//! next, and each answers when it has some.
//!
//! A place is whatever numbers messages by itself: a store that all shards share, or each shard for
//! the messages that it holds. At most one ask is under way at each.

use std::sync::Arc;

use prism_codec::{
    grpc::{Code, Status},
    message::pubsub::SubscribeView,
};

use super::{
    position::{self, Scope},
    reads,
};
use crate::{
    api::stream::{Asked, Opened, Source, Taken},
    call::{
        error,
        job::{Answer, Work},
        messages::{Place, Wanted},
    },
    namespace::spec::{Home, NamespaceSpec},
};

/// The places that number the messages of a namespace by themselves.
pub(super) fn places_of(home: Home, shards: u16) -> Vec<Asked> {
    match home {
        Home::Shards => (0..shards).map(Asked::Shard).collect(),
        Home::Store(store) => vec![Asked::Reader(store)],
    }
}

/// Opens the subscription that a request asks for.
///
/// # Errors
/// Its position is not one of these messages.
pub(super) fn open(
    view: &SubscribeView<'_>,
    spec: &NamespaceSpec,
    shards: u16,
) -> Result<Opened, Box<Status>> {
    let to = places_of(spec.home, shards);
    let scope = position::scope(spec.id, spec.home, view.topics.iter());
    let places = reads::places(&scope, view, to.len())?;
    let wanted = reads::wanted(spec.id, view);
    let source = Subscription::new(wanted, scope, to.into_iter().zip(places));
    Ok(Opened {
        source: Box::new(source),
        after_log: reads::begins_late(view),
    })
}

/// A subscription's state: what it wants, and how far it has come at each place.
struct Subscription {
    wanted: Arc<Wanted>,
    scope: Scope,
    places: Vec<Asking>,
    /// Whether the first answer, which confirms the subscription, has been given.
    stands: bool,
}

struct Asking {
    to: Asked,
    place: Place,
    is_asked: bool,
}

impl Subscription {
    /// A subscription at these places.
    fn new(wanted: Wanted, scope: Scope, places: impl Iterator<Item = (Asked, Place)>) -> Self {
        Self {
            wanted: Arc::new(wanted),
            scope,
            places: places
                .map(|(to, place)| Asking {
                    to,
                    place,
                    is_asked: false,
                })
                .collect(),
            stands: false,
        }
    }
}

impl Source for Subscription {
    fn is_endless(&self) -> bool {
        true
    }

    fn wants_chunk(&self) -> bool {
        self.places.iter().any(|place| !place.is_asked)
    }

    fn awaits_chunk(&self) -> bool {
        false
    }

    fn next_ask(&mut self) -> Option<(Asked, Work)> {
        let (number, place) = (0..).zip(&mut self.places).find(|(_, place)| !place.is_asked)?;
        // Before it has begun at all places nothing is delivered: the first answer has no messages.
        if !self.stands && matches!(place.place, Place::Next(_)) {
            return None;
        }
        place.is_asked = true;
        let work = Work::Messages {
            wanted: self.wanted.clone(),
            place: place.place,
            number,
        };
        Some((place.to, work))
    }

    fn waiting(&self, each: &mut dyn FnMut(Asked)) {
        let asked = self.places.iter().filter(|place| place.is_asked);
        asked.for_each(|place| each(place.to));
    }

    fn take(&mut self, answer: Answer) -> Result<Taken, Box<Status>> {
        let Answer::Messages { number, chunk } = answer else {
            return Err(error::status(
                Code::Internal,
                "a subscription was answered with something else",
            ));
        };
        let Some(place) = self.places.get_mut(usize::from(number)) else {
            return Err(error::status(
                Code::Internal,
                "a place answered that was not asked",
            ));
        };
        place.is_asked = false;
        let chunk = chunk?;
        place.place = Place::Next(chunk.next);
        let mut message = chunk.message;
        if !self.stands {
            let all_stand = self
                .places
                .iter()
                .all(|place| matches!(place.place, Place::Next(_)));
            if !all_stand {
                return Ok(Taken::Nothing);
            }
            self.stands = true;
        } else if message.is_empty() {
            return Ok(Taken::Nothing);
        }
        let places: Vec<_> = self.places.iter().map(|place| place.place).collect();
        if let Some(numbers) = reads::numbers(&places) {
            reads::append_position(&mut message, &self.scope, &numbers);
        }
        Ok(Taken::Message(message))
    }
}
