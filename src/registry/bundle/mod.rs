//! Bundles: what a registry has, in files that cross to where no network goes.
//!
//! A bundle is one or more tar files, its parts. Each begins with the same signed [`Contents`], which names every entry of
//! every part with its digest, so that a part is verified alone; unpacked into one directory the parts are an OCI image
//! layout (a blob that is larger than a part lies in it in pieces).

mod apply;
mod contents;
mod create;
mod part;
mod sign;
mod split;

pub use apply::{Applied, Apply, Verified};
pub use contents::{Contents, Image};
pub use create::{Create, Created, Program};
pub use sign::{Signer, Trusted};
