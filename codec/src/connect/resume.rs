//! Resumption of a stream: which field of a response names the place after it, and which field of a
//! request takes that place.
//!
//! The fields are found in the descriptors by the names that the APIs share, so that a new
//! streaming method needs no code: responses have `position` or `next_page_token`; requests have
//! `position` or `page_token`, in themselves or in their `start` or `selection`.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};

/// Fields of a response that name the place after it.
const PLACES: [&str; 2] = ["position", "next_page_token"];
/// Fields of a request that take such a place.
const TAKERS: [&str; 2] = ["position", "page_token"];
/// Messages of a request that may hold such a field.
const HOLDERS: [&str; 2] = ["start", "selection"];

/// How the streams of one method are resumed.
#[derive(Clone, Debug)]
pub(super) struct Resume {
    place: FieldDescriptor,
    /// Field numbers from the request down to the field that takes the place.
    path: Vec<u32>,
}

impl Resume {
    /// Finds the fields in these messages. `None`: the streams of a method with them cannot be
    /// resumed.
    pub(super) fn of(request: &MessageDescriptor, response: &MessageDescriptor) -> Option<Self> {
        let place = PLACES.iter().find_map(|name| bytes_field(response, name))?;
        let own = TAKERS
            .iter()
            .find_map(|name| bytes_field(request, name))
            .map(|field| vec![field.number()]);
        let path = own.or_else(|| {
            HOLDERS.iter().find_map(|name| {
                let holder = request.get_field_by_name(name).filter(|field| !field.is_list())?;
                let Kind::Message(inner) = holder.kind() else {
                    return None;
                };
                let taker = TAKERS.iter().find_map(|name| bytes_field(&inner, name))?;
                Some(vec![holder.number(), taker.number()])
            })
        })?;
        Some(Self { place, path })
    }

    /// The place after a response; empty if it names none.
    pub(super) fn place_after(&self, response: &DynamicMessage) -> Vec<u8> {
        response
            .get_field(&self.place)
            .as_bytes()
            .map(|bytes| bytes.to_vec())
            .unwrap_or_default()
    }

    /// Puts a place into a request by appending it: the last occurrence of a field counts, and
    /// messages that occur twice are merged.
    pub(super) fn put(&self, place: &[u8], request: &mut Vec<u8>) {
        let mut field = place.to_vec();
        for number in self.path.iter().rev() {
            let mut outer = Vec::with_capacity(field.len() + 8);
            prost::encoding::bytes::encode(*number, &field, &mut outer);
            field = outer;
        }
        request.extend_from_slice(&field);
    }
}

fn bytes_field(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    message
        .get_field_by_name(name)
        .filter(|field| field.kind() == Kind::Bytes && !field.is_list())
}
