//! The Python module `agniregistry_node._core`: starts, watches and stops a server.
//!
//! No request, no record and no callback crosses this boundary, so that Python may stall or die
//! without holding up the registry. Every call that can take time lets go of the interpreter.

mod error;
mod panic;
mod server;
mod settings;

use pyo3::prelude::pymodule;

/// The module.
#[pymodule(gil_used = false)]
mod _core {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::server::Server;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
        module.add("version", env!("CARGO_PKG_VERSION"))?;
        module.add("build_profile", profile)
    }
}
