//! The core of nsqd: topics, their channels, and who consumes them. Knows no protocol.
//!
//! Publishers append to a topic's log and wait for the commit; a task per topic, its pump, hands
//! what is committed to the channels, reads for them what is no longer in memory, and lets time
//! pass for them. Consumers take from their channel under its lock.

mod channel;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod formats;
mod in_flight;
mod record;
mod registry;
mod state;
#[cfg(test)]
mod tests;
mod topic;

pub use channel::{Channel, ChannelStats, SubscribeError, Subscription};
pub use record::NotSettled;
pub use registry::{Broker, Config, OpenError, TopicError};
pub use state::{Counters, NotInFlight};
pub use topic::{ChannelError, NotFound, PublishError, Receipt, TooOften, Topic, TopicStats};

use crate::{
    message::{Message, MessageId, Sequence},
    name::Name,
};

/// One consumer of this nsqd, for as long as its connection lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// A message on its way to a consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The message; its body shares memory with others of its batch.
    pub message: Message,
    /// Its name on the wire.
    pub id: MessageId,
    /// How often it was handed out, this time included.
    pub attempts: u16,
}

/// What a channel does beyond the original's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelOptions {
    /// After so many attempts a message goes to `dead_letter_topic`, or is finished if there is
    /// none. Without it, a message is tried for ever, as in the original.
    pub attempts_max: Option<u16>,
    /// Where messages go that were tried too often.
    pub dead_letter_topic: Option<Name>,
    /// Whether a message waits until the one before it with the same key is finished.
    pub ordered_by_key: bool,
}

/// Where a channel begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// Where the topic is: after what its channels were given, or, if it has none, at the first
    /// message that nobody was given. As in the original.
    #[default]
    Routed,
    /// At the oldest message that is kept.
    Beginning,
    /// After the newest.
    End,
    /// At this message, or the oldest that is kept if it is gone.
    At(Sequence),
}
