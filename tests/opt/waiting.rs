//! Who waits for whom: for a change of the same volume, and never for another's.

use std::path::Path;

use moorage::opt::{LayerId, Needs};
use nix::sys::fanotify::{
    EventFFlags, Fanotify, FanotifyResponse, InitFlags, MarkFlags, MaskFlags, Response,
};
use serde_json::json;

use crate::driver::Docker;
use crate::world::World;

/// A directory that nobody can open before we have said yes: whoever removes a tree with it in it stands still there.
struct Gate(Fanotify);

impl Gate {
    fn at(directory: &Path) -> Gate {
        let init = InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC;
        let gate = Fanotify::init(init, EventFFlags::O_RDONLY).unwrap();
        let open = MaskFlags::FAN_OPEN_PERM | MaskFlags::FAN_ONDIR;
        gate.mark(MarkFlags::FAN_MARK_ADD, open, rustix::fs::CWD, Some(directory)).unwrap();
        Gate(gate)
    }

    /// Waits until somebody stands before it, does `meanwhile` and lets them in. A gate that is gone keeps nobody out.
    fn open_after(self, meanwhile: impl FnOnce()) {
        let events = self.0.read_events().unwrap();
        meanwhile();
        for event in events {
            self.0.write_response(FanotifyResponse::new(event.fd().unwrap(), Response::FAN_ALLOW)).unwrap();
        }
    }
}

/// Fills the volume's own directory, and has its removal stand still.
fn gate(world: &World, name: &str) -> Gate {
    let large = world.merged(name).join("large");
    std::fs::create_dir(&large).unwrap();
    std::fs::write(large.join("file"), "x").unwrap();
    let home = world.merged(name).parent().unwrap().to_owned();
    let upper = crate::world::entries(&home).into_iter().find(|path| path.ends_with("upper-1")).unwrap();
    Gate::at(&upper.join("large"))
}

/// What others do while a tree is removed.
fn go_on(world: &World) {
    let docker = Docker::new(world);
    docker.ok("Mount", json!({"Name": "other", "ID": "x"}));
    docker.ok("Unmount", json!({"Name": "other", "ID": "x"}));
    let layers = world.store.freeze("other", &LayerId::unused(), vec![]).unwrap();
    world.store.restack("other", layers).unwrap();
    world.volume("third", &[]);
    world.store.remove_volume("third").unwrap();
    world.store.collect(|| Ok(Needs::default()), false).unwrap();
}

#[test]
fn nobody_waits_while_what_a_restored_volume_had_is_removed() {
    let world = World::new();
    world.volume("siem", &[]);
    world.volume("other", &[]);
    let gate = gate(&world, "siem");
    std::thread::scope(|scope| {
        scope.spawn(|| world.store.restack("siem", vec![]).unwrap());
        gate.open_after(|| {
            go_on(&world);
            // Nor whoever wants the same volume: what is removed is not its any more.
            Docker::new(&world).ok("Mount", json!({"Name": "siem", "ID": "x"}));
            assert!(!world.view("siem").join("large").exists());
        });
    });
    assert_eq!(world.partial(), [] as [std::path::PathBuf; 0]);
}

#[test]
fn nobody_waits_while_a_volume_is_removed() {
    let world = World::new();
    world.volume("siem", &[]);
    world.volume("other", &[]);
    let gate = gate(&world, "siem");
    std::thread::scope(|scope| {
        scope.spawn(|| world.store.remove_volume("siem").unwrap());
        gate.open_after(|| {
            go_on(&world);
            world.volume("siem", &[]);
        });
    });
    assert_eq!(world.partial(), [] as [std::path::PathBuf; 0]);
}

#[test]
fn what_is_needed_is_asked_when_nobody_can_begin_to_need_it() {
    let world = World::new();
    world.volume("siem", &[]);
    let layers = world.store.freeze("siem", &LayerId::unused(), vec![]).unwrap();
    let held = world.store.hold_layers(&layers).unwrap();
    // The container goes; a snapshot is written down and its hold let go while somebody collects.
    world.store.remove_volume("siem").unwrap();
    let needs = || {
        drop(held);
        Ok(Needs { layers: layers.iter().cloned().collect(), ..Needs::default() })
    };
    assert_eq!(world.store.collect(needs, true).unwrap(), 0);
    let held = world.store.hold_layers(&layers).unwrap();
    let nobody = || {
        drop(held);
        Ok(Needs::default())
    };
    assert_eq!(world.store.collect(nobody, true).unwrap(), 0);
    assert_eq!(world.store.collect(|| Ok(Needs::default()), true).unwrap(), 1);
}

#[test]
fn nobody_waits_at_a_start_for_what_was_half_removed() {
    let mut world = World::new();
    world.volume("siem", &[]);
    world.volume("other", &[]);
    world.new_volume("half", &[]).unwrap().make_dirs("large/a").unwrap();
    let large = world.storage().join(".store/volumes/half/upper-1/large");
    let older = world.storage().join(".store/partial/0123456789abcdef/large");
    std::fs::create_dir_all(older.join("a")).unwrap();
    let gates = [Gate::at(&large), Gate::at(&older)];
    // It would stand still before a gate.
    world.open_again().unwrap();
    go_on(&world);
    world.new_volume("half", &[]).unwrap();
    assert_eq!(world.partial().len(), 2);
    drop(gates);
    world.store.remove_left();
    assert_eq!(world.partial(), [] as [std::path::PathBuf; 0]);
    assert!(world.store.remove_volume("half").is_ok());
}
