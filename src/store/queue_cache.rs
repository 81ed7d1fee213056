//! The cache that every request reads queues through.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use super::Queue;
use crate::domain::QueueName;

/// Queues that this gateway has used. An entry is good for a second; then one
/// of the requests that find it stale reads it anew, and the others go on with
/// what there is meanwhile.
#[derive(Debug, Default)]
pub(super) struct Cache(RwLock<Entries>);

#[derive(Debug, Default)]
struct Entries {
    by_name: HashMap<QueueName, Entry>,
    names: HashMap<i64, QueueName>,
}

#[derive(Debug)]
struct Entry {
    queue: Arc<Queue>,
    loaded: Instant,
    being_refreshed: AtomicBool,
}

/// How old a cached queue may be.
const FRESH: Duration = Duration::from_secs(1);

/// How old it may become while another request reads it anew.
const STALE: Duration = Duration::from_secs(2);

impl Cache {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Entries> {
        self.0
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Entries> {
        self.0
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) fn by_name(&self, name: &QueueName) -> Option<Arc<Queue>> {
        self.read().by_name.get(name).and_then(Entry::get)
    }

    pub(super) fn by_id(&self, id: i64) -> Option<Arc<Queue>> {
        let entries = self.read();
        let entry = entries.by_name.get(entries.names.get(&id)?)?;
        (entry.queue.id == id).then(|| entry.get()).flatten()
    }

    pub(super) fn insert(&self, queue: Queue) -> Arc<Queue> {
        let queue = Arc::new(queue);
        let entry = Entry {
            queue: Arc::clone(&queue),
            loaded: Instant::now(),
            being_refreshed: AtomicBool::new(false),
        };
        let mut entries = self.write();
        entries.names.insert(queue.id, queue.name.clone());
        if let Some(old) = entries.by_name.insert(queue.name.clone(), entry)
            && old.queue.id != queue.id
        {
            entries.names.remove(&old.queue.id);
        }
        queue
    }

    pub(super) fn remove_ids(&self, ids: &[i64]) {
        let mut entries = self.write();
        for id in ids {
            if let Some(name) = entries.names.remove(id) {
                entries.by_name.remove(&name);
            }
        }
    }

    pub(super) fn remove(&self, name: &QueueName) {
        let mut entries = self.write();
        if let Some(old) = entries.by_name.remove(name) {
            entries.names.remove(&old.queue.id);
        }
    }
}

impl Entry {
    fn get(&self) -> Option<Arc<Queue>> {
        let age = self.loaded.elapsed();
        let usable =
            age < FRESH || (age < STALE && self.being_refreshed.swap(true, Ordering::Relaxed));
        usable.then(|| Arc::clone(&self.queue))
    }
}
