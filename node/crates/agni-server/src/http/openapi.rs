//! STUB
/// The document.
pub fn document(_version: &str) -> serde_json::Value {
    serde_json::json!({})
}
