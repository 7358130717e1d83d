pub mod time;
pub mod id;
pub mod close;
pub mod error;
pub mod inbox;
pub mod outbox;
pub mod framing;
pub mod wheel; pub mod config; pub(crate) mod net;
pub use id::*; pub use close::*; pub use error::*;
