//! HTTP/1.1, the server's side: a pull parser for requests and writers for responses (RFC 9112).
//!
//! Promises bounded memory (it keeps none: the caller keeps the unconsumed tail of its input, at
//! most [`HTTP1_HEAD_BYTES_MAX`] without progress), and one reading of every request: anything that
//! two parsers might read differently (both lengths, odd chunk sizes, folded lines, bare line
//! feeds) is refused, because that is how requests are smuggled past a proxy. Leaves HTTP/2,
//! routing and timeouts to the caller.
//!
//! ```text
//! input ──► poll_event ──► Head, Body*, End, Head, …      the caller answers after End, then polls for the next Head
//! ```

mod body;
mod head;
mod response;

pub use head::{Head, Headers, Version};
pub use response::{
    Response, put_chunk, put_chunks_end, put_continue, put_error, put_head_chunked, put_head_until_close,
    put_response,
};

use body::Body;

use crate::limits::{HTTP1_HEAD_BYTES_MAX, MESSAGE_BYTES_MAX};

/// A request that cannot be served. The connection is closed after it, since the start of the next
/// request is unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HttpError {
    /// 400, 405, 408, 413, 414, 417, 431, 501 or 505.
    pub status: u16,
    /// The fault, as a sentence.
    pub message: &'static str,
}

impl std::fmt::Display for HttpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.status, self.message)
    }
}

impl std::error::Error for HttpError {}

/// An event of the parser.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Request line and header fields.
    Head(Head<'a>),
    /// The next bytes of the body, never empty; chunked bodies arrive without their framing.
    Body(&'a [u8]),
    /// The request is complete.
    End,
}

/// A parser of one connection's requests.
#[derive(Debug)]
pub struct Connection {
    state: State,
    body_max: usize,
    keep_alive: bool,
    /// Bytes of an incomplete head that were searched for its end already, so that a head that
    /// arrives byte by byte costs its length and not its square.
    searched: usize,
}

#[derive(Debug)]
enum State {
    Head,
    Body(Body),
    /// Broken, or closed after a request without keep-alive: nothing more is read.
    Closed,
}

impl Connection {
    /// Makes a parser for bodies of at most `body_max` bytes.
    pub fn new(body_max: usize) -> Self {
        Connection {
            state: State::Head,
            body_max,
            keep_alive: true,
            searched: 0,
        }
    }

    /// The next event, consumed from the front of `input`. `None`: call again with the rest of
    /// `input` followed by more bytes. After an error send [`put_error`] and close.
    pub fn poll_event<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, HttpError> {
        let result = match &mut self.state {
            State::Head => self.poll_head(input),
            State::Body(body) => body.poll(input),
            State::Closed => {
                *input = &[];
                Ok(None)
            }
        };
        match result {
            Ok(Some(Event::End)) => {
                self.state = if self.keep_alive {
                    State::Head
                } else {
                    State::Closed
                }
            }
            Err(_) => {
                self.keep_alive = false;
                self.state = State::Closed;
            }
            Ok(_) => {}
        }
        result
    }

    fn poll_head<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, HttpError> {
        // RFC 9112, 2.2: empty lines before the request line are skipped.
        while let [b'\r', b'\n', rest @ ..] = input {
            *input = rest;
            self.searched = 0;
        }
        let Some(length) = head::find_end(input, &mut self.searched)? else {
            return Ok(None);
        };
        debug_assert!(length <= HTTP1_HEAD_BYTES_MAX);
        let (bytes, rest) = input.split_at(length);
        *input = rest;
        self.searched = 0;
        let (head, framing) = head::parse(bytes)?;
        self.keep_alive = head.keep_alive;
        self.state = State::Body(Body::new(framing, self.body_max)?);
        Ok(Some(Event::Head(head)))
    }

    /// Whether another request may follow the one being read. If false, respond with
    /// `connection: close`.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Stops reading after the current request (drain).
    pub fn close_after_request(&mut self) {
        self.keep_alive = false;
        if matches!(self.state, State::Head) {
            self.state = State::Closed;
        }
    }

    /// Stops reading at once: the request that was begun is answered without the rest of it.
    pub fn close(&mut self) {
        self.keep_alive = false;
        self.state = State::Closed;
    }

    /// Whether the connection is between two requests, given the rest of the input: the peer may
    /// close here.
    pub fn is_idle(&self, rest: &[u8]) -> bool {
        matches!(self.state, State::Closed) || (matches!(self.state, State::Head) && rest.is_empty())
    }
}

impl Default for Connection {
    fn default() -> Self {
        Connection::new(MESSAGE_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests;
