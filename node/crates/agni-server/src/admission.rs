//! Who may begin to look at many records on a runtime. One such read by itself is quick, but it
//! runs on the thread that also takes renewals: so many of them at once would make those wait.
//! What is too much is refused before anything is read.

use crate::limits;
use crate::status::RpcError;
use agni_core::raft::work::Priority;
use std::cell::Cell;

thread_local! {
    static UNDER_WAY: Cell<usize> = const { Cell::new(0) };
}

/// A place among the reads of this runtime, free again when it is dropped.
#[derive(Debug)]
pub struct Place;

impl Drop for Place {
    fn drop(&mut self) {
        UNDER_WAY.set(UNDER_WAY.get() - 1);
    }
}

/// Takes a place, and lets whatever else has arrived meanwhile go first.
///
/// # Errors
/// When there are too many of this priority already.
pub async fn admit(priority: Priority) -> Result<Place, RpcError> {
    let most = match priority {
        Priority::Watch => limits::WATCH_STARTS_MAX,
        _ => limits::MANY_READS_MAX,
    };
    if UNDER_WAY.get() >= most {
        return Err(RpcError::overloaded("too many lists, discoveries and new watches at once"));
    }
    UNDER_WAY.set(UNDER_WAY.get() + 1);
    let place = Place;
    tokio::task::yield_now().await;
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Code;

    #[tokio::test]
    async fn lists_leave_room_for_watches_and_are_told_when_to_come_back() {
        let mut places = Vec::new();
        let refusal = loop {
            match admit(Priority::Many).await {
                Ok(place) => places.push(place),
                Err(refusal) => break refusal,
            }
        };
        assert_eq!(places.len(), limits::MANY_READS_MAX);
        assert_eq!((refusal.code, refusal.reason), (Code::ResourceExhausted, "OVERLOADED"));
        assert!(refusal.retry_ms.is_some());
        places.push(admit(Priority::Watch).await.expect("a watch resumes before lists begin"));
        while let Ok(place) = admit(Priority::Watch).await {
            places.push(place);
        }
        assert_eq!(places.len(), limits::WATCH_STARTS_MAX);
        drop(places);
        assert!(admit(Priority::Many).await.is_ok());
    }
}
