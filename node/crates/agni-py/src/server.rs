//! The class `Server`.

use crate::error::AgniNodeError;
use crate::panic;
use crate::settings::Settings;
use pyo3::prelude::*;
use std::mem::ManuallyDrop;
use std::sync::{Mutex, PoisonError};

/// A running server. It owns its threads; `stop` or garbage collection ends them.
#[pyclass(frozen, module = "agniregistry_node._core")]
pub struct Server {
    inner: ManuallyDrop<agni_server::Server>,
    pid: u32,
}

#[pymethods]
impl Server {
    /// Recovers the data directory, then serves it. A node that waits for its cluster gives up when
    /// a signal's handler raises something.
    #[staticmethod]
    fn start(py: Python<'_>, config: Settings) -> PyResult<Server> {
        panic::install();
        let config = config.into_server_config()?;
        let raised = Mutex::new(None);
        let is_wanted = || {
            let checked = Python::attach(|py| py.check_signals());
            checked
                .map_err(|error| {
                    *raised.lock().unwrap_or_else(PoisonError::into_inner) = Some(error)
                })
                .is_ok()
        };
        let started = py.detach(|| agni_server::Server::start_while(config, &is_wanted));
        if let Some(error) = raised.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let inner = started.map_err(|error| AgniNodeError::new_err((error.code, error.message)))?;
        Ok(Server { inner: ManuallyDrop::new(inner), pid: std::process::id() })
    }

    /// host:port where it listens.
    fn local_address(&self) -> PyResult<String> {
        Ok(self.here()?.local_address().to_string())
    }

    /// What ClusterService.Status answers, as JSON.
    fn status_json(&self, py: Python<'_>) -> PyResult<String> {
        let server = self.here()?;
        Ok(py.detach(|| server.status_json()))
    }

    /// Whether requests should be sent here.
    fn ready(&self) -> PyResult<bool> {
        Ok(self.here()?.ready())
    }

    /// Whether the cluster has removed this node.
    fn has_left(&self) -> PyResult<bool> {
        Ok(self.here()?.has_left())
    }

    /// Takes no new connection and waits for those that there are.
    fn drain(&self, py: Python<'_>, timeout_ms: u64) -> PyResult<()> {
        let server = self.here()?;
        py.detach(|| server.drain(timeout_ms));
        Ok(())
    }

    /// Ends everything; what was answered is durable. Safe to repeat.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        let server = self.here()?;
        py.detach(|| server.stop());
        Ok(())
    }
}

impl Server {
    /// The server, unless this process is a fork: its threads stayed with the parent.
    fn here(&self) -> PyResult<&agni_server::Server> {
        if std::process::id() == self.pid {
            return Ok(&self.inner);
        }
        let message = "a node doesn't survive fork; start one in the child, or use spawn";
        Err(AgniNodeError::new_err(("FORKED", message)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // In a fork there is nobody to join; waiting would never end.
        if std::process::id() == self.pid {
            // SAFETY: dropped here only, and never used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.inner) };
        }
    }
}
