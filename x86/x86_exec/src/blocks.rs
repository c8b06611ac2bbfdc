//! Decoded basic blocks, kept.
//!
//! A block is found by the host address of its first byte and the mode it was decoded for, so all
//! linear addresses of a page share its blocks. It never reaches beyond its page, and is good
//! while the page's [`Env::code_generation`] is what it was before the bytes were read.

use x86_decode::{Decoder, INSN_SIZE_MAX, Insn};

use crate::control::is_near;
use crate::fuse::fuse;
use crate::{Env, Handler, HostAddr, Mode, select};

/// Longer blocks gain nothing, and keep events waiting.
const INSNS_MAX: usize = 32;
/// Memory is bounded: when so many instructions (48 bytes each) are kept, all are dropped.
const OPS_MAX: usize = 1 << 18;
/// The same for blocks.
const BLOCKS_MAX: usize = 1 << 17;
const HEADS: usize = 1 << 14;
/// Code is marked in pieces of this size: each mark may cost a barrier across all threads.
const MARK_SIZE: u64 = 1024;
const PAGE_SIZE: u64 = 4096;

/// Names a block; the cache may have dropped it since.
pub(crate) type BlockId = u32;
/// No block.
pub(crate) const NO_BLOCK: BlockId = u32::MAX;

/// An instruction and the function that does it.
pub(crate) struct Op<E: Env> {
    pub(crate) handler: Handler<E>,
    pub(crate) insn: Insn,
}

/// Instructions that run one after another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block {
    at: HostAddr,
    generation: u32,
    first: u32,
    /// Number of instructions, at least one.
    pub(crate) len: u8,
    /// Number of ops: one less where the last one is a pair (see [`fuse`]).
    ops: u8,
    mode: Mode,
    /// The last instruction changes nothing but what any instruction may, and RIP.
    pub(crate) plain: bool,
    /// Bytes.
    pub(crate) size: u16,
    /// Blocks that ran after this one.
    links: [BlockId; 2],
    /// In the list of those with the same hash.
    next: BlockId,
}

/// All blocks of a CPU.
pub(crate) struct Blocks<E: Env> {
    blocks: Vec<Block>,
    ops: Vec<Op<E>>,
    heads: Box<[BlockId]>,
}

impl<E: Env> Default for Blocks<E> {
    /// Without room: what a running CPU leaves in its place.
    fn default() -> Self {
        Self { blocks: Vec::new(), ops: Vec::new(), heads: Box::default() }
    }
}

fn hash(at: HostAddr) -> usize {
    (at.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 50) as usize & (HEADS - 1)
}

impl<E: Env> Blocks<E> {
    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        self.blocks.clear();
        self.ops.clear();
        self.heads.fill(NO_BLOCK);
    }

    #[inline(always)]
    pub(crate) fn block(&self, id: BlockId) -> &Block {
        &self.blocks[id as usize]
    }

    #[inline(always)]
    pub(crate) fn ops(&self, block: &Block) -> &[Op<E>] {
        &self.ops[block.first as usize..][..usize::from(block.ops)]
    }

    /// The block at `at`, which often ran after `previous`; decoded now if need be. `None` when
    /// the first instruction there is not wholly on its page, or is none.
    #[inline(always)]
    pub(crate) fn find(
        &mut self,
        env: &E,
        at: HostAddr,
        mode: Mode,
        previous: BlockId,
    ) -> Option<BlockId> {
        if let Some(before) = self.blocks.get(previous as usize) {
            // Both are of this mode: it does not change from a block to one that is linked.
            let generation = env.code_generation(at);
            for id in before.links {
                if let Some(block) = self.blocks.get(id as usize)
                    && block.at == at
                    && block.generation == generation
                {
                    debug_assert_eq!(block.mode, mode);
                    return Some(id);
                }
            }
        }
        self.find_slow(env, at, mode, previous)
    }

    #[inline(never)]
    fn find_slow(
        &mut self,
        env: &E,
        at: HostAddr,
        mode: Mode,
        previous: BlockId,
    ) -> Option<BlockId> {
        let kept = self.blocks.len();
        let id = self.lookup(env, at, mode)?;
        // Decoding may have dropped `previous`, whose number is then another's.
        if self.blocks.len() >= kept
            && let Some(before) = self.blocks.get_mut(previous as usize)
        {
            before.links = [id, before.links[0]];
        }
        Some(id)
    }

    fn lookup(&mut self, env: &E, at: HostAddr, mode: Mode) -> Option<BlockId> {
        if self.heads.is_empty() {
            self.heads = vec![NO_BLOCK; HEADS].into_boxed_slice();
        }
        let mut id = self.heads[hash(at)];
        while let Some(block) = self.blocks.get(id as usize) {
            if block.at == at && block.mode == mode {
                if block.generation == env.code_generation(at) {
                    return Some(id);
                }
                return self.decode(env, at, mode, Some(id));
            }
            id = block.next;
        }
        self.decode(env, at, mode, None)
    }

    /// Decodes a block; in place of `old`, whose bytes were written.
    #[cold]
    fn decode(
        &mut self,
        env: &E,
        at: HostAddr,
        mode: Mode,
        old: Option<BlockId>,
    ) -> Option<BlockId> {
        let mut old = old;
        if self.ops.len() + INSNS_MAX > OPS_MAX || self.blocks.len() >= BLOCKS_MAX {
            self.clear();
            old = None;
        }
        let in_page = at.0 & (PAGE_SIZE - 1);
        let available = (PAGE_SIZE - in_page).min((INSNS_MAX * INSN_SIZE_MAX) as u64);
        // In this order: what is read is no older than the generation, nor than the mark.
        let generation = env.code_generation(at);
        mark(env, at, available);
        let mut bytes = [0; INSNS_MAX * INSN_SIZE_MAX];
        let bytes = &mut bytes[..available as usize];
        env.read(at, bytes);
        let first = self.ops.len();
        let (len, size, plain) = self.decode_into_ops(env, mode, bytes);
        let ops = (self.ops.len() - first) as u8;
        if len == 0 {
            return None;
        }
        let id = old.unwrap_or(self.blocks.len() as BlockId);
        let mut block = Block {
            at,
            generation,
            first: first as u32,
            len,
            ops,
            mode,
            plain,
            size,
            links: [NO_BLOCK; 2],
            next: NO_BLOCK,
        };
        match self.blocks.get_mut(id as usize) {
            Some(slot) => {
                block.next = slot.next;
                *slot = block;
            }
            None => {
                block.next = std::mem::replace(&mut self.heads[hash(at)], id);
                self.blocks.push(block);
            }
        }
        Some(id)
    }

    /// Decodes up to the first instruction that ends a block, is incomplete or invalid.
    /// How many instructions and bytes they are, and whether the last one is plain.
    fn decode_into_ops(&mut self, env: &E, mode: Mode, bytes: &[u8]) -> (u8, u16, bool) {
        let mut decoder = Decoder::new(mode.code_bits(), bytes).with_features(env.features());
        let (mut len, mut size) = (0, 0);
        while usize::from(len) < INSNS_MAX {
            let Ok(insn) = decoder.next_insn() else { break };
            size = insn.offset + u16::from(insn.len);
            len += 1;
            if len > 1
                && let Some(before) = self.ops.last_mut()
                && let Some(pair) = fuse(&before.insn, &insn)
            {
                *before = pair;
                return (len, size, true);
            }
            self.ops.push(Op { handler: select(&insn), insn });
            if insn.ends_block() {
                return (len, size, is_near(&insn));
            }
        }
        (len, size, true)
    }
}

/// Marks whole pieces that hold the bytes.
fn mark<E: Env>(env: &E, at: HostAddr, size: u64) {
    let start = at.0 & !(MARK_SIZE - 1);
    let end = (at.0 + size).next_multiple_of(MARK_SIZE);
    env.mark_code(HostAddr(start), (end - start) as usize);
}
