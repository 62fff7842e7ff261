//! The address of a gateway.

use std::{
    net::{TcpStream, ToSocketAddrs as _},
    time::Duration,
};

pub(super) const HTTP: &str = "http";
pub(super) const HTTPS: &str = "https";

/// The parts of the user's text for the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) scheme: &'static str,
    /// `host:port`.
    pub(super) authority: String,
}

impl Address {
    pub(super) fn parse(server: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = match server.split_once("://") {
            Some((HTTPS, rest)) => (HTTPS, rest),
            Some((HTTP, rest)) => (HTTP, rest),
            Some(_) => return Err("only http:// and https:// may stand before it"),
            None => (HTTP, server),
        };
        let authority = rest.trim_end_matches('/');
        let Some((host, port)) = authority.rsplit_once(':') else {
            return Err("the port is missing; write host:port such as 127.0.0.1:8980");
        };
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err("that is not host:port such as 127.0.0.1:8980");
        }
        Ok(Self {
            scheme,
            authority: authority.to_owned(),
        })
    }

    pub(super) fn host(&self) -> &str {
        self.authority.rsplit_once(':').map_or("", |(host, _)| host)
    }
}

/// Connects to the first address of `authority` that answers.
pub(super) fn dial(authority: &str, wait: Duration) -> Result<TcpStream, String> {
    let addresses = authority.to_socket_addrs().map_err(|error| error.to_string())?;
    let mut failure = "the name has no address".to_owned();
    for address in addresses {
        match TcpStream::connect_timeout(&address, wait) {
            Ok(socket) => return Ok(socket),
            Err(error) => failure = error.to_string(),
        }
    }
    Err(failure)
}
