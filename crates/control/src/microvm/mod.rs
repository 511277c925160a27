//! The life of a MicroVM: its transitions (`state`), the one task that makes them (`driver`), its calls of the host (`work`), what is written down (`journal`), whom to ask
//! (`registry`), and requests on their way to it (`traffic`).

pub(crate) mod driver;
pub(crate) mod hooks;
mod journal;
pub(crate) mod registry;
pub(crate) mod state;
mod traffic;
mod work;
