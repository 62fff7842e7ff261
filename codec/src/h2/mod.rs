//! HTTP/2 (RFC 9113) as a pure state machine, server and client, made for unary gRPC in large
//! numbers.
//!
//! ```text
//!   receive buffer --Input--> Connection::poll_event --> Event (borrows payloads from the buffer)
//!   commands: send_headers, send_data, send_grpc_reply, reset, goaway, ... --> one output buffer --> take_output
//! ```
//!
//! A driver only moves bytes: it appends the received bytes to those left from the last time, calls
//! [`Connection::poll_event`] until it answers `None`, drops the consumed bytes, and sends the
//! output. There is no clock inside; [`Connection::tick`] brings time for the budgets of the
//! defences.
//!
//! ```
//! use prism_codec::h2::{Config, Connection, ConnectionError, Event, Input};
//!
//! /// Server: serves what lies in `received`, returns how much of it is used up.
//! fn serve(connection: &mut Connection, received: &[u8]) -> Result<usize, ConnectionError> {
//!     let mut input = Input::new(received);
//!     while let Some(event) = connection.poll_event(&mut input)? {
//!         match event {
//!             Event::Headers { headers, memoizable, .. } => {
//!                 let route = u32::from(headers.get(b":path") == Some(b"/prism.Echo/Echo"));
//!                 if memoizable {
//!                     connection.memoize(route); // next time: MemoHeaders { memo: route, .. }
//!                 }
//!             }
//!             Event::MemoHeaders { .. } => {}
//!             Event::Data { stream, data, end_stream: true } => {
//!                 // `data` is still borrowed from `received`; the closure writes the message, without its 5-byte prefix.
//!                 let echo = data.get(5..).unwrap_or_default();
//!                 // An error means that the peer no longer waits.
//!                 let _ = connection.send_grpc_reply(stream, |out| out.extend_from_slice(echo));
//!             }
//!             _ => {}
//!         }
//!     }
//!     Ok(input.consumed())
//! }
//!
//! /// Client: one request; the driver sends what `take_output` gives and feeds what comes back to `poll_event`.
//! fn ask(connection: &mut Connection, message: &[u8]) -> Option<()> {
//!     let stream = connection
//!         .send_request(
//!             &[
//!                 (b":method", b"POST"),
//!                 (b":scheme", b"http"),
//!                 (b":path", b"/prism.Echo/Echo"),
//!                 (b":authority", b"localhost"),
//!                 (b"content-type", b"application/grpc"),
//!                 (b"te", b"trailers"),
//!             ],
//!             false,
//!         )
//!         .ok()?;
//!     connection.send_grpc_message(stream, true, |out| out.extend_from_slice(message)).ok()
//! }
//!
//! let (mut client, mut server) = (Connection::new(Config::client()), Connection::new(Config::server()));
//! ask(&mut client, b"hello").expect("a new connection takes requests");
//! let request = client.take_output(Vec::new());
//! assert_eq!(serve(&mut server, &request), Ok(request.len()));
//! let reply = server.take_output(request); // the old buffer becomes the next output buffer
//!
//! let (mut input, mut body) = (Input::new(&reply), Vec::new());
//! while let Some(event) = client.poll_event(&mut input).expect("the server speaks HTTP/2") {
//!     match event {
//!         Event::Data { data, .. } => body.extend_from_slice(data),
//!         Event::Trailers { headers, .. } => assert_eq!(headers.get(b"grpc-status"), Some(&b"0"[..])),
//!         _ => {}
//!     }
//! }
//! assert_eq!(body, b"\0\0\0\0\x05hello");
//! ```

mod config;
mod connection;
mod error;
mod event;
mod flow;
mod frame;
mod headers;
pub mod hpack;
mod stream;

pub use config::{Config, Role};
pub use connection::{Connection, Fields};
pub use error::{ConnectionError, ErrorCode, SendError};
pub use event::{Event, Input, StreamId};
pub use hpack::HeaderList;

/// The client connection preface (RFC 9113 section 3.4), the first bytes of an HTTP/2 connection,
/// by which a driver distinguishes it from HTTP/1.1. The connection itself consumes it.
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
