//! The servers that are compared. All take the same Put, keep the value in a map by id, and answer
//! as the gateway does.

mod codec;
mod echo;
mod h2_crate;
mod tonic;

use std::{collections::HashMap, net::SocketAddr};

use clap::ValueEnum;

pub(crate) const VALUE_BYTES: usize = 256;
/// About what a Put takes on the wire in either direction, once header blocks are indexed.
pub(crate) const ECHO_REQUEST_BYTES: usize = 360;
pub(crate) const ECHO_REPLY_BYTES: usize = 48;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// The gateway itself, everything on.
    Prism,
    /// Our connection code on monoio.
    CodecMonoio,
    /// Our connection code on glommio.
    CodecGlommio,
    /// Our connection code on tokio.
    CodecTokio,
    /// The h2 crate on tokio, with prost.
    H2Crate,
    /// tonic on tokio.
    Tonic,
    /// No protocol at all, on monoio.
    Echo,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] = [
        Self::Prism,
        Self::CodecMonoio,
        Self::CodecGlommio,
        Self::CodecTokio,
        Self::H2Crate,
        Self::Tonic,
        Self::Echo,
    ];

    /// Name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Prism => "prism",
            Self::CodecMonoio => "codec-monoio",
            Self::CodecGlommio => "codec-glommio",
            Self::CodecTokio => "codec-tokio",
            Self::H2Crate => "h2-crate",
            Self::Tonic => "tonic",
            Self::Echo => "echo",
        }
    }

    /// Name in a table.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Prism => "this gateway, everything on",
            Self::CodecMonoio => "our connection code alone, monoio",
            Self::CodecGlommio => "our connection code alone, glommio",
            Self::CodecTokio => "our connection code alone, tokio (one thread)",
            Self::H2Crate => "`h2` crate with prost, tokio (one thread)",
            Self::Tonic => "tonic, tokio (one thread)",
            Self::Echo => "bare TCP echo, monoio",
        }
    }
}

/// Runs a server until it is killed.
pub(crate) fn serve(kind: Kind, listen: SocketAddr) -> Result<(), String> {
    match kind {
        Kind::Prism => Err("the gateway is run by `prism serve`".to_owned()),
        Kind::CodecMonoio => codec::monoio(listen),
        Kind::CodecGlommio => codec::glommio(listen),
        Kind::CodecTokio => codec::tokio(listen),
        Kind::H2Crate => h2_crate::serve(listen),
        Kind::Tonic => tonic::serve(listen),
        Kind::Echo => echo::serve(listen),
    }
    .map_err(|error| error.to_string())
}

/// The store of the servers that are not the gateway.
pub(crate) type Map = HashMap<String, Vec<u8>>;

/// Runtime of a tokio server.
pub(crate) fn on_tokio(future: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    tokio::task::LocalSet::new().block_on(&runtime, future)
}
