//! Key-value servers that speak RESP, one file each: they answer GET and SET.

pub(super) mod ours;
pub(super) mod redis;
