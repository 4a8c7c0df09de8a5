//! The one exception that this module raises, as Python declares it.

pyo3::import_exception!(agniregistry_node.errors, AgniNodeError);
