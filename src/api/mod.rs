//! The wire between CLI and daemon: HTTP and JSON on a unix socket.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/version` | [`Version`] |
//! | `GET /v1/containers?long=` | `Vec<ContainerView>`; `long`: with what each takes on disk |
//! | `GET /v1/containers/{typed}` | [`ContainerDetail`]; `typed` may be the caller's short name |
//! | `POST /v1/plan` [`MakeRequest`] | [`Plan`](crate::spec::plan::Plan) |
//! | `POST /v1/containers` [`MakeRequest`] | events; the result is a [`MakeResult`] |
//! | `POST /v1/containers/{typed}/start`, `/stop`, `/restart`, `/remove` | events; the result is a [`VerbResult`] |
//! | `POST /v1/containers/{typed}/clone/plan` [`CloneRequest`] | [`ClonePlan`] |
//! | `POST /v1/containers/{typed}/clone` [`CloneRequest`] | events; the result is a [`CloneResult`] |
//! | `GET /v1/containers/{typed}/clones` | `Vec<ContainerName>`; the container itself may be gone |
//! | `POST /v1/containers/{typed}/snapshot` [`SnapshotRequest`] | events; the result is a [`SnapshotResult`] |
//! | `POST /v1/containers/{typed}/restore` [`SnapshotNamed`] | events; the result is a [`VerbResult`] |
//! | `POST /v1/containers/{typed}/snapshot/remove` [`SnapshotNamed`] | [`VerbResult`]; the container may be gone |
//! | `GET /v1/snapshots` | `Vec<SnapshotView>` |
//! | `POST /v1/snapshots/clone` [`FromSnapshot`] | events; the result is a [`CloneResult`] |
//! | `POST /v1/containers/{typed}/losses`, `/recreate` [`RecreateRequest`] | [`Losses`]; events, the result is a [`VerbResult`] |
//! | `POST /v1/containers/{typed}/resize` [`ResizeRequest`] | [`Resized`] |
//! | `GET /v1/store/unneeded` | `Vec<UnneededLayer>` |
//! | `POST /v1/containers/{typed}/snapshot/publish` | [`PublishRequest`] → events, [`PublishedSnapshot`] |
//! | `POST /v1/snapshots/clone-published` | [`FromPublished`] → events, [`CloneResult`] |
//! | `POST /v1/store/collect` | [`Collected`]; admins only |
//! | `POST /v1/operations/{id}/source` [`SourceDone`] | `{}` |
//! | `POST /v1/operations/{id}/cancel` | `{}`; the operation undoes itself and says so in its events |
//! | `POST /v1/present` [`PresentRequest`] | [`Present`] |
//! | `GET /v1/containers/{typed}/logs?follow=&lines=` | text, as it comes |
//! | `POST /v1/containers/{typed}/enter` [`EnterRequest`], upgraded | [`frame`] |
//! | `GET /v1/leases` | `Vec<LeaseView>` |
//! | `GET /v1/in-use` | [`InUse`](crate::spec::InUse): what of registries this host uses |
//! | `GET /v1/doctor?deep=` | `Vec<`[`Finding`](crate::report::Finding)`>`; takes some seconds |
//!
//! Events are [`report::Event`](crate::report::Event), one JSON object a line, `done` or `failed` last. An answer
//! that is no 2xx carries a [`report::Fault`](crate::report::Fault). Every request says `Moorage-Api: 1`.

pub mod client;
pub mod clone;
pub mod frame;
pub mod snapshot;
pub mod store;
pub mod types;

pub use client::Client;
pub use clone::{CloneDone, CloneFailed, ClonePlan, CloneRequest, CloneResult, LargeFile, MOST_CLONES};
pub use snapshot::{
    FromPublished, FromSnapshot, Losses, PublishRequest, PublishedSnapshot, RecreateRequest, SnapshotNamed,
    SnapshotRequest, SnapshotResult, SnapshotView,
};
pub use store::{Collected, ResizeRequest, Resized, UnneededLayer};
pub use types::*;

use crate::report::{Fault, Kind};

/// Where the daemon listens for people.
pub const SOCKET: &str = "/run/moorage/api.sock";
/// The header that says which wire a side speaks, and what this build speaks.
pub const API_HEADER: &str = "moorage-api";
pub const API_VERSION: u32 = 1;
/// The header of a stream of events that names the operation, for `/v1/operations/{id}/cancel`.
pub const OPERATION_HEADER: &str = "moorage-operation";
/// The largest request body, in bytes: a specification with its licences.
pub const BODY_LIMIT: usize = 8 << 20;

/// A request above [`BODY_LIMIT`].
pub fn too_large() -> Fault {
    Fault::new(Kind::Usage, format!("the request is larger than {} MiB", BODY_LIMIT >> 20))
        .next("licences and files that are this large belong into the /opt archive")
}
