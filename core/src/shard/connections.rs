//! A shard's table of connections. A place is reused under the next generation, so that a late
//! answer for an old connection is dropped. One client address gets a part of the places only, so
//! that the last ones are left to others.

use std::{net::IpAddr, rc::Rc};

use rustc_hash::FxHashMap;

use super::connection::Connection;
use crate::call::ticket::Ticket;

/// The table.
pub(crate) struct Connections {
    slots: Vec<Slot>,
    free: Vec<u32>,
    open: usize,
    max: usize,
    /// Number of places of each client.
    clients: FxHashMap<Client, usize>,
    per_client_max: usize,
}

/// Identity of a client: an address, or an IPv6 network of 64 bits, all of which one host may use.
type Client = u128;

fn client_of(address: IpAddr) -> Client {
    match address.to_canonical() {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits() >> 64 << 64,
    }
}

/// The reason why a connection was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// All places are taken.
    Full,
    /// All places allowed to its client are taken.
    Client,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    connection: Option<Rc<Connection>>,
}

impl Connections {
    /// Makes a table for `max` connections at a time, `per_client_max` of them from one address.
    pub(crate) fn new(max: usize, per_client_max: usize) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            open: 0,
            max,
            clients: FxHashMap::default(),
            per_client_max,
        }
    }

    /// Changes the most connections, of all clients and of one; open ones stay.
    pub(crate) fn set_max(&mut self, max: usize, per_client_max: usize) {
        (self.max, self.per_client_max) = (max, per_client_max);
    }

    /// Takes a place for a client and makes the connection with its (slot, generation).
    pub(crate) fn insert(
        &mut self,
        client: IpAddr,
        make: impl FnOnce(u32, u32) -> Rc<Connection>,
    ) -> Result<Rc<Connection>, Refusal> {
        if self.open >= self.max {
            return Err(Refusal::Full);
        }
        let places = self.clients.entry(client_of(client)).or_default();
        if *places >= self.per_client_max {
            return Err(Refusal::Client);
        }
        *places += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        let place = &mut self.slots[slot as usize];
        place.generation = place.generation.wrapping_add(1);
        let connection = make(slot, place.generation);
        place.connection = Some(connection.clone());
        self.open += 1;
        Ok(connection)
    }

    /// The connection that a ticket belongs to, if it is still there.
    pub(crate) fn find(&self, ticket: &Ticket) -> Option<Rc<Connection>> {
        let place = self.slots.get(ticket.slot as usize)?;
        (place.generation == ticket.generation)
            .then(|| place.connection.clone())
            .flatten()
    }

    /// Frees a place.
    pub(crate) fn remove(&mut self, address: &Ticket, client: IpAddr) {
        if let Some(place) = self.slots.get_mut(address.slot as usize)
            && place.generation == address.generation
            && place.connection.take().is_some()
        {
            self.free.push(address.slot);
            self.open -= 1;
            let client = client_of(client);
            if let Some(places) = self.clients.get_mut(&client) {
                *places -= 1;
                if *places == 0 {
                    self.clients.remove(&client);
                }
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_one_host_is_one_client() {
        let client = |text: &str| client_of(text.parse().expect("an address"));
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:1"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(client("192.0.2.1"), client("::ffff:192.0.2.1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
    }
}
