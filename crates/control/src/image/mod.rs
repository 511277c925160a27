//! Images: their transitions (`state`), the tasks that build and delete (`driver`), and the bases there are to build on (`managed`).

pub(crate) mod driver;
pub(crate) mod managed;
pub(crate) mod state;
