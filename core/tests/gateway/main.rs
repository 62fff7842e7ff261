//! Promises of the whole gateway, tested in one process: the server is started as by `prism serve`
//! and called over its port by gRPC.

mod access;
#[path = "../process/authority.rs"]
mod authority;
mod behavior;
mod clock;
mod fairness;
mod groups;
mod homes;
mod idle_poll;
mod kafka;
mod late;
mod log;
mod messages;
mod nats;
mod outage;
mod output;
mod overtaken;
mod postgres;
mod power_cut;
mod pubsub;
mod pubsub_postgres;
mod queue;
mod queue_postgres;
mod queued;
mod rates;
mod raw;
mod redis;
mod replaced;
mod replay;
mod shared_catalog;
mod support;
mod upgrade;
mod web;
