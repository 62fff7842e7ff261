//! A shard's table of connections. A place is used again, under the next generation, so that a late answer for an old
//! connection finds nobody.

use std::rc::Rc;

use super::connection::Connection;
use crate::call::ticket::Ticket;

/// The table.
pub(crate) struct Connections {
    slots: Vec<Slot>,
    free: Vec<u32>,
    open: usize,
    max: usize,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    connection: Option<Rc<Connection>>,
}

impl Connections {
    /// Room for `max` connections at a time.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            open: 0,
            max,
        }
    }

    /// Changes how many connections there may be; those that are open stay.
    pub(crate) fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    /// Takes a place and makes the connection with its (slot, generation). `None` at the maximum.
    pub(crate) fn insert(&mut self, make: impl FnOnce(u32, u32) -> Rc<Connection>) -> Option<Rc<Connection>> {
        if self.open >= self.max {
            return None;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        let place = &mut self.slots[slot as usize];
        place.generation = place.generation.wrapping_add(1);
        let connection = make(slot, place.generation);
        place.connection = Some(connection.clone());
        self.open += 1;
        Some(connection)
    }

    /// The connection that a ticket belongs to, if it is still there.
    pub(crate) fn find(&self, ticket: &Ticket) -> Option<Rc<Connection>> {
        let place = self.slots.get(ticket.slot as usize)?;
        (place.generation == ticket.generation)
            .then(|| place.connection.clone())
            .flatten()
    }

    /// Gives a place back.
    pub(crate) fn remove(&mut self, address: &Ticket) {
        if let Some(place) = self.slots.get_mut(address.slot as usize)
            && place.generation == address.generation
            && place.connection.take().is_some()
        {
            self.free.push(address.slot);
            self.open -= 1;
        }
    }

    /// All open connections.
    pub(crate) fn all(&self) -> Vec<Rc<Connection>> {
        self.slots
            .iter()
            .filter_map(|slot| slot.connection.clone())
            .collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.open
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open == 0
    }
}
