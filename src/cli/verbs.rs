//! The verbs of each role. A verb is one line here, one file in the role's directory.

use anyhow::Result;
use clap::Subcommand;

use crate::invocation::Invocation;

/// A role: an enum of its verbs (`Verb => file`), in the order of its help.
macro_rules! role {
    ($role:ident in $directory:ident { $($verb:ident => $file:ident,)* }) => {
        #[derive(Debug, Subcommand)]
        pub enum $role {
            $($verb(crate::$directory::$file::Args),)*
        }

        impl $role {
            /// Carries the verb out.
            pub async fn run(self, invocation: &Invocation) -> Result<()> {
                match self {
                    $($role::$verb(args) => crate::$directory::$file::run(args, invocation).await,)*
                }
            }
        }
    };
}

role!(Dockeruser in dockeruser {
    Setup => setup,
    ListProjects => list_projects,
    MakeDevContainer => make_dev_container,
    MakeOsContainer => make_os_container,
    StartContainer => start_container,
    StopContainer => stop_container,
    RestartContainer => restart_container,
    RemoveContainer => remove_container,
    ListContainers => list_containers,
    ShowContainer => show_container,
    EnterContainer => enter_container,
    CloneContainer => clone_container,
    SnapshotContainer => snapshot_container,
    RestoreContainer => restore_container,
    ListSnapshots => list_snapshots,
    RemoveSnapshot => remove_snapshot,
    PublishSnapshot => publish_snapshot,
    RecreateContainer => recreate_container,
    ResizeContainer => resize_container,
    PruneContainers => prune_containers,
    ShowLogs => show_logs,
    ListLeases => list_leases,
    Doctor => doctor,
});

role!(Containerauthor in containerauthor {
    MakeBaseImage => make_base_image,
    MakeDevImage => make_dev_image,
    ListImages => list_images,
    RebuildImages => rebuild_images,
    PublishImage => publish_image,
    PublishOpt => publish_opt,
});

role!(Registryserver in registryserver {
    StartRegistry => start_registry,
    StopRegistry => stop_registry,
    ShowRegistry => show_registry,
    AddUser => add_user,
    RemoveUser => remove_user,
    CollectGarbage => collect_garbage,
    CreateBundle => create_bundle,
    ApplyBundle => apply_bundle,
    KeepRegistry => keep_registry,
});

role!(Scripthacker in scripthacker {
    StartLab => start_lab,
    StopLab => stop_lab,
    CheckSite => check_site,
    NewSite => new_site,
    NewProject => new_project,
});
