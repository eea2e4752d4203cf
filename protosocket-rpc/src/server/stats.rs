/// What the calls of one connection came to.
///
/// Each rpc that was started is counted in one of the ways in which it ended:
/// `started = finished + cancelled + rejected + failed + collided + abandoned`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RpcStats {
    /// Requests that the service was asked to begin an rpc for.
    pub started: u64,
    /// Rpcs whose last response, or whose stream's end, was sent.
    pub finished: u64,
    /// Rpcs that their client cancelled.
    pub cancelled: u64,
    /// Requests that the service rejected.
    pub rejected: u64,
    /// Rpcs that panicked, or whose response could not be encoded or had an unknown control code.
    pub failed: u64,
    /// Rpcs that were dropped because their id was used for another call.
    pub collided: u64,
    /// Rpcs that were running when the connection ended.
    pub abandoned: u64,
    /// Requests beyond `max_concurrent_rpcs`: those that were answered with a cancellation, and one
    /// that waited for a place when the connection ended.
    pub refused: u64,
    /// Cancellations and ends of calls that were not running, or not any more, and ends of calls that
    /// were: requests are one message, so there is nothing to end.
    pub ignored: u64,
    /// Messages with a control code that is not known.
    pub unknown_codes: u64,
}
