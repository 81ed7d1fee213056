//! What the gateway publishes by itself, of the SQL door and of schedules: when it is
//! to look, and what follows.

use tokio::sync::Notify;

use super::{Alarm, Broker};
use crate::store::Arrived;

impl Broker {
    /// Something may have come through the SQL door.
    #[must_use]
    pub fn door(&self) -> &Notify {
        &self.door
    }

    /// When the next tick of a schedule is due.
    #[must_use]
    pub fn schedules(&self) -> &Alarm {
        &self.schedules
    }

    /// The gateway itself has published, in a transaction that was committed: turns
    /// are passed on, and messages are received at once, or at their time.
    pub async fn arrived(&self, arrived: Arrived) {
        self.after.arrived(&self.store, arrived).await;
    }
}
