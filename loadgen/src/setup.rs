//! Steps before and after a load: creating the namespace, and checking a journal against what
//! survived.
//!
//! Uses one blocking connection and one call at a time; nothing here is measured.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use prism_codec::{
    h2::{self, Event, Input},
    message::keyvalue::{GetResponseView, encode_get_request},
    method::KeyValueMethod,
};

use crate::{
    call::{KeyName, item_number},
    journal::Entry,
    mix::Operation,
    outcome::Outcome,
    values::Values,
};

const PATIENCE: Duration = Duration::from_secs(10);

/// Why a call brought no message.
#[derive(Debug)]
pub enum CallError {
    /// The server could not be reached, or broke the connection.
    Io(io::Error),
    /// The server refused: its code and message.
    Refused(Outcome, String),
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Refused(outcome, message) => write!(f, "{outcome}: {message}"),
        }
    }
}

impl From<io::Error> for CallError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A blocking client for one unary call at a time.
pub struct Blocking<'h> {
    socket: TcpStream,
    h2: h2::Connection,
    received: Vec<u8>,
    buffer: Vec<u8>,
    authority: String,
    headers: &'h [(String, String)],
}

impl<'h> Blocking<'h> {
    /// Connects; every later read waits at most ten seconds.
    ///
    /// # Errors
    /// The server can not be reached.
    pub fn connect(address: SocketAddr, headers: &'h [(String, String)]) -> io::Result<Self> {
        let socket = TcpStream::connect_timeout(&address, PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        let h2 = h2::Connection::new(h2::Config::client());
        Ok(Self {
            socket,
            h2,
            received: Vec::new(),
            buffer: vec![0; 64 << 10],
            authority: address.to_string(),
            headers,
        })
    }

    /// Makes one unary call and gives the message of the answer.
    ///
    /// # Errors
    /// The server refused, or the connection broke.
    pub fn call(&mut self, path: &str, message: &[u8]) -> Result<Vec<u8>, CallError> {
        let mut fields: Vec<(&[u8], &[u8])> = vec![
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path.as_bytes()),
            (b":authority", self.authority.as_bytes()),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
        ];
        fields.extend(
            self.headers
                .iter()
                .map(|(name, value)| (name.as_bytes(), value.as_bytes())),
        );
        let refused = |error| io::Error::other(format!("the request can not be sent: {error}"));
        let stream = self.h2.send_request(&fields, false).map_err(refused)?;
        self.h2
            .send_grpc_message(stream, true, |out| out.extend_from_slice(message))
            .map_err(refused)?;
        let mut body = Vec::new();
        loop {
            self.socket.write_all(self.h2.output())?;
            self.h2.output().clear();
            let count = self.socket.read(&mut self.buffer)?;
            if count == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            self.received.extend_from_slice(&self.buffer[..count]);
            let received = std::mem::take(&mut self.received);
            let mut input = Input::new(&received);
            let end = poll_end(&mut self.h2, &mut input, &mut body)?;
            self.received = received[input.consumed()..].to_vec();
            match end {
                None => {}
                Some((Outcome::OK, _)) => {
                    return match body.get(5..) {
                        Some(message) if body[0] == 0 => Ok(message.to_vec()),
                        _ => Err(CallError::Refused(
                            Outcome::INTERNAL,
                            "OK without a plain message".to_owned(),
                        )),
                    };
                }
                Some((outcome, message)) => return Err(CallError::Refused(outcome, message)),
            }
        }
    }
}

/// Handles events until the answer has ended or the input is used up.
fn poll_end(
    h2: &mut h2::Connection,
    input: &mut Input<'_>,
    body: &mut Vec<u8>,
) -> Result<Option<(Outcome, String)>, CallError> {
    let ended = |headers: &h2::HeaderList| {
        let text = |name: &[u8]| {
            headers
                .get(name)
                .map(|value| String::from_utf8_lossy(value).into_owned())
        };
        let code = text(b"grpc-status").and_then(|code| code.parse().ok());
        let outcome = code.map_or(Outcome::UNKNOWN, Outcome::from_code);
        (outcome, text(b"grpc-message").unwrap_or_default())
    };
    loop {
        let event = h2
            .poll_event(input)
            .map_err(|error| io::Error::other(error.to_string()))?;
        match event {
            None => return Ok(None),
            Some(
                Event::Headers {
                    headers,
                    end_stream: true,
                    ..
                }
                | Event::Trailers { headers, .. },
            ) => {
                return Ok(Some(ended(headers)));
            }
            Some(Event::Data { data, .. }) => body.extend_from_slice(data),
            Some(Event::Reset { code, .. }) => {
                return Ok(Some((
                    Outcome::from_reset(code.0),
                    format!("stream reset with {code}"),
                )));
            }
            Some(_) => {}
        }
    }
}

/// Creates the namespace of a load, best-effort by default. An existing one is fine.
///
/// # Errors
/// The server's reason.
pub fn create_namespace(
    client: &mut Blocking<'_>,
    name: &str,
    durability: &str,
    pubsub: bool,
) -> Result<(), CallError> {
    let (api, more) = match pubsub {
        true => ("pubsub", "  ordered: true\n"),
        false => ("keyvalue", ""),
    };
    let yaml = format!(
        "namespace: {name}\nteam: loadgen\nclient_api: {api}\nneeds:\n  durability: {durability}\n{more}"
    );
    // CreateRequest { string yaml = 1 }, written by hand: one field is not worth a dependency.
    let mut message = vec![0x0A];
    let mut length = yaml.len();
    while length >= 0x80 {
        message.push(length as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend_from_slice(yaml.as_bytes());
    match client.call("/prism.admin.v1.Namespaces/Create", &message) {
        Ok(_) => Ok(()),
        Err(CallError::Refused(outcome, _)) if outcome.name() == "ALREADY_EXISTS" => Ok(()),
        Err(error) => Err(error),
    }
}

/// Findings of the check of a journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survival {
    /// Keys that the journal names.
    pub keys: u64,
    /// Acknowledged writes that the journal names.
    pub acknowledged: u64,
    /// Faults, for people: acknowledged writes that are lost, values that are not right.
    pub wrong: Vec<String>,
}

/// Contents of the journal for one key.
#[derive(Clone, Copy, Debug, Default)]
struct Claim {
    /// The newest acknowledged write, and whether it deleted.
    acknowledged: Option<(u64, bool)>,
    /// The newest deletion of which nobody knows whether it took place.
    open_deletion: u64,
}

/// Reads every key of the journal and compares: no acknowledged write may be lost. Writes after the
/// journal's last are allowed, so the check may also run during a load.
///
/// # Errors
/// The server can not be asked.
pub fn check_journal(
    client: &mut Blocking<'_>,
    namespace: &str,
    entries: &[Entry],
) -> Result<Survival, CallError> {
    let (claims, acknowledged) = claims(entries);
    let mut survival = Survival {
        keys: claims.len() as u64,
        acknowledged,
        wrong: Vec::new(),
    };
    let values = Values::default();
    let mut keys: Vec<u64> = claims.keys().copied().collect();
    keys.sort_unstable();
    for key in keys {
        let mut request = Vec::new();
        encode_get_request(&mut request, namespace, KeyName::new(key).as_str(), None, None);
        let answer = client.call(KeyValueMethod::Get.spec().path, &request)?;
        if let Err(wrong) = newest_of(&values, key, &answer).and_then(|found| judge(claims[&key], found)) {
            survival
                .wrong
                .push(format!("`{}`: {wrong}", KeyName::new(key).as_str()));
        }
    }
    Ok(survival)
}

fn claims(entries: &[Entry]) -> (HashMap<u64, Claim>, u64) {
    let mut claims: HashMap<u64, Claim> = HashMap::new();
    let mut acknowledged = 0;
    for entry in entries {
        let claim = claims.entry(entry.key).or_default();
        let deletes = entry.operation == Operation::Delete;
        if entry.outcome == Outcome::OK {
            acknowledged += 1;
            let newer = claim
                .acknowledged
                .is_none_or(|(sequence, _)| entry.sequence > sequence);
            if newer {
                claim.acknowledged = Some((entry.sequence, deletes));
            }
        } else if deletes {
            claim.open_deletion = claim.open_deletion.max(entry.sequence);
        }
    }
    (claims, acknowledged)
}

/// The newest write that made a key's contents; `None` when the key holds nothing, `Some(None)`
/// when the write is unknown: values are too short, or it was a compare-and-swap, which is not
/// ordered by its generation time.
fn newest_of(values: &Values, key: u64, answer: &[u8]) -> Result<Option<Option<u64>>, String> {
    let view = GetResponseView::decode(answer).map_err(|error| error.to_string())?;
    let mut newest = None;
    for item in view.items.iter() {
        let number = item_number(item.key).ok_or("an item key that is not ours")?;
        let seen = values
            .check(key, number, item.value)
            .map_err(|wrong| wrong.to_string())?;
        newest = Some(seen.map(|seen| seen.sequence).max(newest.flatten()));
    }
    Ok(newest)
}

fn judge(claim: Claim, found: Option<Option<u64>>) -> Result<(), String> {
    match (claim.acknowledged, found) {
        (None, _) | (Some(_), Some(None)) | (Some((_, true)), None) => Ok(()),
        (Some((sequence, false)), None) if claim.open_deletion > sequence => Ok(()),
        (Some((sequence, false)), None) => Err(format!(
            "lost: write {sequence} was acknowledged, nothing is there"
        )),
        (Some((sequence, _)), Some(Some(found))) if found >= sequence => Ok(()),
        (Some((sequence, _)), Some(Some(found))) => Err(format!(
            "lost: write {sequence} was acknowledged, the older {found} is there"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(sequence: u64, operation: Operation, outcome: Outcome) -> Entry {
        Entry {
            sequence,
            key: 1,
            operation,
            outcome,
            lane: 0,
            lsn: 0,
        }
    }

    fn verdict(entries: &[Entry], found: Option<Option<u64>>) -> bool {
        judge(claims(entries).0[&1], found).is_ok()
    }

    #[test]
    fn acknowledged_writes_must_survive() {
        let put = |sequence| entry(sequence, Operation::Put, Outcome::OK);
        assert!(verdict(&[put(5), put(3)], Some(Some(5))));
        assert!(verdict(&[put(5)], Some(Some(9))), "a newer write may have come");
        assert!(!verdict(&[put(5), put(3)], Some(Some(3))));
        assert!(!verdict(&[put(5)], None));
        assert!(
            verdict(&[entry(5, Operation::Put, Outcome::LOST)], None),
            "nobody promised it"
        );
    }

    #[test]
    fn deletions_count_too() {
        let (put, delete) = (
            entry(5, Operation::Put, Outcome::OK),
            entry(7, Operation::Delete, Outcome::OK),
        );
        assert!(verdict(&[put, delete], None));
        assert!(
            !verdict(&[put, delete], Some(Some(5))),
            "a deleted item came back"
        );
        let open = entry(7, Operation::Delete, Outcome::LOST);
        assert!(verdict(&[put, open], None));
        assert!(verdict(&[put, open], Some(Some(5))));
        let older = entry(3, Operation::Delete, Outcome::LOST);
        assert!(!verdict(&[put, older], None));
    }
}
