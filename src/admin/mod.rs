//! The admin endpoint of `heartline serve --admin`: HTTP on the server's own loop, and the client
//! of it that `status` and `top` use.

pub(crate) mod api;
pub(crate) mod client;
pub(crate) mod server;
