//! Layers that somebody has asked for and no volume names yet: between the two they must not be collected.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::layer_id::LayerId;

/// What is held of one store, by anybody. A crash lets go of everything, and nobody is left to need it.
#[derive(Debug, Default)]
pub struct Holds(Mutex<HashMap<LayerId, Weak<()>>>);

/// Keeps a layer from being collected for as long as it, or a clone of it, is there. The default keeps nothing.
#[derive(Debug, Clone, Default)]
pub struct Held(#[allow(dead_code, reason = "its life is its meaning")] Option<Arc<()>>);

/// Whether a layer is held is no part of what it is.
impl PartialEq for Held {
    fn eq(&self, _: &Held) -> bool {
        true
    }
}

impl Eq for Held {}

impl Holds {
    fn lock(&self) -> MutexGuard<'_, HashMap<LayerId, Weak<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn hold(&self, layer: &LayerId) -> Held {
        let mut held = self.lock();
        held.retain(|_, holder| holder.strong_count() > 0);
        let holder = held.get(layer).and_then(Weak::upgrade).unwrap_or_default();
        held.insert(layer.clone(), Arc::downgrade(&holder));
        Held(Some(holder))
    }

    /// Every layer that somebody holds now.
    pub fn all(&self) -> BTreeSet<LayerId> {
        let held = self.lock();
        held.iter().filter(|(_, holder)| holder.strong_count() > 0).map(|(layer, _)| layer.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_held_until_the_last_holder_is_gone() {
        let (holds, layer) = (Holds::default(), LayerId::unused());
        let is_held = || holds.all().contains(&layer);
        assert!(!is_held());
        let one = holds.hold(&layer);
        let two = (holds.hold(&layer), one.clone());
        drop(one);
        assert!(is_held());
        drop(two);
        assert!(!is_held());
    }
}
