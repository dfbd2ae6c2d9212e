//! Beginning a verb on a container: who may, then nobody else, then what it is by now.

use anyhow::Result;

use super::App;
use super::operations::Operation;
use super::permit::Action;
use crate::container::settle::settle;
use crate::container::{Caller, Record};
use crate::report::{Fault, Kind};

impl App {
    /// Begins `verb` on the container that `typed` means to `caller`, and answers its record as it is then.
    ///
    /// # Errors
    /// [`Kind::Denied`] where the caller may not, [`Kind::NotFound`] where there is none, or none any more.
    pub(super) async fn looked_up(
        &self,
        caller: &Caller,
        action: Action,
        (typed, verb): (&str, &'static str),
    ) -> Result<(Operation, Record)> {
        let record = self.permitted(caller, action, typed)?;
        let name = record.spec.name.as_str();
        let operation = self.operations.begin(name, verb, caller.account.uid).await?;
        // Another operation may have ended between the look-up and ours.
        let current = self.permitted_if_there(caller, action, name)?.ok_or_else(|| {
            Fault::new(Kind::NotFound, format!("{name} was removed just now")).next("list-containers")
        })?;
        Ok((operation, current))
    }

    /// As [`App::looked_up`], with what was begun on it before brought to its end.
    pub(super) async fn begun(
        &self,
        caller: &Caller,
        action: Action,
        what: (&str, &'static str),
    ) -> Result<(Operation, Record)> {
        let (operation, record) = self.looked_up(caller, action, what).await?;
        Ok((operation, settle(&self.host, &record).await?))
    }
}
