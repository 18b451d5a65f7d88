//! What every HTTP connection of both programs shares: TLS, proxies, bodies and `Retry-After`.

mod address;
pub(crate) mod body;
pub(crate) mod connection;
mod environment;
mod reach;

pub(crate) use address::is_loopback;
pub(crate) use body::{Body, BodyError, ZstdPlace, ZstdPlaces};
pub(crate) use connection::{
    client_build_error, client_builder, connection_advice, describe, goes_through_proxy, proxy_refusal,
    remember_proxy_passwords, retry_after,
};
pub(crate) use environment::unused_proxy;
pub(crate) use reach::{OutOfReach, Reach, out_of_reach};
