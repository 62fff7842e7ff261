//! A subscription as the source of a stream: it asks each of its places for the next messages, and
//! each answers when it has some.
//!
//! A place numbers messages by itself: a store that all shards share, or each shard for the
//! messages that it holds. At most one ask is in flight at each.

use std::sync::Arc;

use prism_codec::grpc::{Code, Status};

use super::stream::{Asked, Taken};
use crate::{
    api::pubsub::{position::Scope, reads},
    call::{
        error,
        job::{Answer, PubSubWork, Work},
        messages::{Place, Wanted},
    },
};

/// A subscription's state: its wanted messages, and its progress at each place.
pub(crate) struct Subscription {
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
    /// Makes a subscription at these places.
    pub(super) fn new(wanted: Wanted, scope: Scope, places: impl Iterator<Item = (Asked, Place)>) -> Self {
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

    /// Whether a place has no ask now.
    pub(super) fn wants_messages(&self) -> bool {
        self.places.iter().any(|place| !place.is_asked)
    }

    /// The next ask.
    pub(super) fn next_ask(&mut self) -> Option<(Asked, Work)> {
        let (number, place) = (0..).zip(&mut self.places).find(|(_, place)| !place.is_asked)?;
        // Before it has begun at all places nothing is delivered: the first answer has no messages.
        if !self.stands && matches!(place.place, Place::Next(_)) {
            return None;
        }
        place.is_asked = true;
        let work = PubSubWork::Ask {
            wanted: self.wanted.clone(),
            place: place.place,
            number,
        };
        Some((place.to, Work::PubSub(work)))
    }

    /// Places with unanswered asks.
    pub(super) fn asked(&self) -> impl Iterator<Item = Asked> {
        self.places
            .iter()
            .filter(|place| place.is_asked)
            .map(|place| place.to)
    }

    /// Handles an answer.
    pub(super) fn take(&mut self, answer: Answer) -> Result<Taken, Box<Status>> {
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
