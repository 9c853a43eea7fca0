// Prefix attention on CPU, forward and backward, one pass over the data each.
//
// The running state (m, u, w) of one sequence and head, for up to 128 dims, stays in vector
// registers while the tokens stream by. What a token does to it are three numbers, found for a
// block of tokens at a time with a vector exponential:
//
//     m_k = max(m_{k-1}, s_k)    decay a_k = exp(m_{k-1} - m_k)    weight b_k = exp(s_k - m_k)
//     u_k = a_k u_{k-1} + b_k    w_k = a_k w_{k-1} + b_k v_k       o_k = w_k / u_k
//
// Backward runs from the last token to the first, with g_k the gradient to o_k:
//
//     R_k = g_k / u_k + a_{k+1} R_{k+1}    C_k = (o_k . g_k) / u_k + a_{k+1} C_{k+1}
//     dv_k = b_k R_k                       ds_k = b_k (v_k . R_k - C_k)
//
// No exponent is positive. -inf scores have weight 0; a NaN is never hidden.
//
// A plain C interface for ctypes: no header of Python or torch is needed to build it. Threads are
// those of torch's own OpenMP runtime: the caller passes the address of its GOMP_parallel.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <limits>

#include "vectors.h"

#if defined(__x86_64__) && defined(__GLIBC__)
#define FOR_EACH_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_CPU
#endif

namespace {

constexpr int64_t kBlock = 128;       // tokens whose decays and weights are found together
constexpr int64_t kMaxUnitDim = 128;  // dims that one unit of work keeps in registers

// Everything that a call needs; the Python side packs it in this order, 8 bytes a field.
struct Call {
    int64_t sequences, heads, dim, time;  // time: tokens on the time axis (all, when packed)
    const int64_t* offsets;               // [sequences + 1] of a packed batch, else null
    int64_t unit_dim;                     // dims of a unit of work, a multiple of 16
    int64_t threads;
    void (*parallel)(void (*)(void*), void*, unsigned, unsigned);  // GOMP_parallel or null
    const void* scores;                                            // [batch, time, heads]
    const void* values;                                            // innermost stride is 1
    int64_t value_strides[3];                                      // batch, time, head
    const void *m0, *u0, *w0;  // initial state or null
    void* outputs;             // [batch, time, heads, dim]
    void *m, *u;               // [batch, heads, time] or null
    void *m_end, *u_end, *w_end;
    // Backward only.
    const void* d_outputs;  // innermost stride is 1
    int64_t d_output_strides[3];
    const void *du_end, *dw_end;  // or null
    void* d_scores;               // [dim units, batch, time, heads], to be summed over the first
    void* d_values;               // [batch, time, heads, dim]
    void *du0, *dw0;              // [dim units, sequences, heads] (to be summed) and as w0
};

// One unit of work: a sequence, a head and a range of dims.
struct Unit {
    int64_t row, head, batch, begin, end, dim_unit, dim_begin, dims;
};

INLINE Unit find_unit(const Call& call, int64_t index) {
    Unit unit;
    const int64_t dim_units = (call.dim + call.unit_dim - 1) / call.unit_dim;
    unit.dim_unit = index % dim_units;
    unit.head = index / dim_units % call.heads;
    const int64_t sequence = index / dim_units / call.heads;
    unit.row = sequence * call.heads + unit.head;
    unit.batch = call.offsets ? 0 : sequence;
    unit.begin = call.offsets ? call.offsets[sequence] : 0;
    unit.end = call.offsets ? call.offsets[sequence + 1] : call.time;
    unit.dim_begin = unit.dim_unit * call.unit_dim;
    unit.dims = std::min(call.unit_dim, call.dim - unit.dim_begin);
    return unit;
}

// Forward over the tokens of a block for `Count` vectors of dims (or a part of one).
template <typename Value, int Count, bool Part>
INLINE void forward_tokens(
    const Value* values, int64_t value_stride, Value* outputs, int64_t output_stride,
    typename Traits<Value>::Real* state, int64_t tokens, const typename Traits<Value>::Real* decay,
    const typename Traits<Value>::Real* weight, const typename Traits<Value>::Real* inverse,
    int64_t part) {
    typedef typename Traits<Value>::Vector Vector;
    constexpr int lanes = sizeof(Vector) / sizeof(typename Traits<Value>::Real);
    Vector w[Count];
    for (int j = 0; j < Count; ++j) w[j] = load(state + j * lanes);
    for (int64_t k = 0; k < tokens; ++k) {
        for (int j = 0; j < Count; ++j) {
            const Value* v = values + k * value_stride + j * lanes;
            const Vector x = Part ? load_part<Value, Vector>(v, part) : load(v);
            w[j] = w[j] * decay[k] + x * weight[k];
            Value* o = outputs + k * output_stride + j * lanes;
            if (Part)
                store_part<Value, Vector>(o, w[j] * inverse[k], part);
            else
                store(o, w[j] * inverse[k]);
        }
    }
    for (int j = 0; j < Count; ++j) store(state + j * lanes, w[j]);
}

// Backward over the tokens of a block, from the last to the first; adds to d_scores.
template <typename Value, int Count, bool Part>
INLINE void backward_tokens(
    const Value* values, int64_t value_stride, const Value* outputs, int64_t output_stride,
    const Value* gradients, int64_t gradient_stride, Value* d_values,
    typename Traits<Value>::Real* state, typename Traits<Value>::Vector* dot, int64_t tokens,
    const typename Traits<Value>::Real* decay, const typename Traits<Value>::Real* weight,
    const typename Traits<Value>::Real* inverse, typename Traits<Value>::Real* d_scores,
    int64_t part) {
    typedef typename Traits<Value>::Vector Vector;
    constexpr int lanes = sizeof(Vector) / sizeof(typename Traits<Value>::Real);
    Vector r[Count];
    Vector c = *dot;
    for (int j = 0; j < Count; ++j) r[j] = load(state + j * lanes);
    for (int64_t k = tokens - 1; k >= 0; --k) {
        Vector og[2] = {}, vr[2] = {};
        for (int j = 0; j < Count; ++j) {
            const Value* gp = gradients + k * gradient_stride + j * lanes;
            const Value* op = outputs + k * output_stride + j * lanes;
            const Value* vp = values + k * value_stride + j * lanes;
            const Vector g = Part ? load_part<Value, Vector>(gp, part) : load(gp);
            const Vector o = Part ? load_part<Value, Vector>(op, part) : load(op);
            const Vector v = Part ? load_part<Value, Vector>(vp, part) : load(vp);
            r[j] = r[j] * decay[k] + g * inverse[k];
            og[j % 2] += o * g;
            vr[j % 2] += v * r[j];
            Value* d = d_values + k * output_stride + j * lanes;
            if (Part)
                store_part<Value, Vector>(d, r[j] * weight[k], part);
            else
                store(d, r[j] * weight[k]);
        }
        c = c * decay[k] + (og[0] + og[1]) * inverse[k];
        d_scores[k] += weight[k] * sum_lanes((vr[0] + vr[1]) - c);
    }
    for (int j = 0; j < Count; ++j) store(state + j * lanes, r[j]);
    *dot = c;
}

template <typename Value>
INLINE void forward_unit(const Call& call, int64_t index) {
    typedef typename Traits<Value>::Real Real;
    typedef typename Traits<Value>::Vector Vector;
    constexpr int64_t lanes = sizeof(Vector) / sizeof(Real);
    const Unit unit = find_unit(call, index);
    const bool first = unit.dim_unit == 0;
    const Real* scores = static_cast<const Real*>(call.scores) + unit.head;
    const Value* values = static_cast<const Value*>(call.values) +
                          unit.batch * call.value_strides[0] + unit.head * call.value_strides[2] +
                          unit.dim_begin;
    const int64_t output_stride = call.heads * call.dim;
    Value* outputs = static_cast<Value*>(call.outputs) + unit.head * call.dim + unit.dim_begin;
    const int64_t origin = unit.batch * call.time;
    Real* m_out = call.m && first ? static_cast<Real*>(call.m) : nullptr;
    Real* u_out = call.u && first ? static_cast<Real*>(call.u) : nullptr;
    const int64_t line = (unit.batch * call.heads + unit.head) * call.time;

    alignas(64) Real state[kMaxUnitDim] = {};
    Real m = -std::numeric_limits<Real>::infinity(), u = 0;
    if (call.m0) {
        m = static_cast<const Real*>(call.m0)[unit.row];
        u = static_cast<const Real*>(call.u0)[unit.row];
        const Real* w0 = static_cast<const Real*>(call.w0) + unit.row * call.dim + unit.dim_begin;
        std::copy(w0, w0 + unit.dims, state);
    }
    alignas(64) Real decay[kBlock], weight[kBlock], inverse[kBlock];
    for (int64_t start = unit.begin; start < unit.end; start += kBlock) {
        const int64_t tokens = std::min(kBlock, unit.end - start);
        const int64_t padded = (tokens + lanes - 1) / lanes * lanes;
        for (int64_t k = 0; k < tokens; ++k) {
            const Real s = scores[(origin + start + k) * call.heads];
            const Real next = s > m ? s : m;
            const Real floor = above_infinity(next);
            decay[k] = m - floor;
            weight[k] = s - floor;
            m = next;
            if (m_out) m_out[line + start + k] = m;
        }
        for (int64_t k = tokens; k < padded; ++k) decay[k] = weight[k] = 0;
        exponential(decay, padded);
        exponential(weight, padded);
        for (int64_t k = 0; k < tokens; ++k) {
            u = u * decay[k] + weight[k];
            inverse[k] = u;
        }
        if (u_out) std::copy(inverse, inverse + tokens, u_out + line + start);
        for (int64_t k = 0; k < tokens; ++k) inverse[k] = inverse[k] == 0 ? 0 : 1 / inverse[k];

        const Value* v = values + start * call.value_strides[1];
        Value* o = outputs + (origin + start) * output_stride;
        int64_t d = 0;
#define AAREN_FORWARD(count, is_part, part)                                               \
    forward_tokens<Value, count, is_part>(v + d, call.value_strides[1], o + d,            \
                                          output_stride, state + d, tokens, decay,        \
                                          weight, inverse, part)
        for (; d + 8 * lanes <= unit.dims; d += 8 * lanes) AAREN_FORWARD(8, false, 0);
        for (; d + 4 * lanes <= unit.dims; d += 4 * lanes) AAREN_FORWARD(4, false, 0);
        for (; d + 2 * lanes <= unit.dims; d += 2 * lanes) AAREN_FORWARD(2, false, 0);
        for (; d + lanes <= unit.dims; d += lanes) AAREN_FORWARD(1, false, 0);
        if (d < unit.dims) AAREN_FORWARD(1, true, unit.dims - d);
#undef AAREN_FORWARD
    }
    if (first) {
        static_cast<Real*>(call.m_end)[unit.row] = m;
        static_cast<Real*>(call.u_end)[unit.row] = u;
    }
    Real* w_end = static_cast<Real*>(call.w_end) + unit.row * call.dim + unit.dim_begin;
    std::copy(state, state + unit.dims, w_end);
}

template <typename Value>
INLINE void backward_unit(const Call& call, int64_t index) {
    typedef typename Traits<Value>::Real Real;
    typedef typename Traits<Value>::Vector Vector;
    constexpr int64_t lanes = sizeof(Vector) / sizeof(Real);
    const Unit unit = find_unit(call, index);
    const int64_t batches = call.offsets ? 1 : call.sequences;
    const Real* scores = static_cast<const Real*>(call.scores) + unit.head;
    const Value* values = static_cast<const Value*>(call.values) +
                          unit.batch * call.value_strides[0] + unit.head * call.value_strides[2] +
                          unit.dim_begin;
    const Value* gradients = static_cast<const Value*>(call.d_outputs) +
                             unit.batch * call.d_output_strides[0] +
                             unit.head * call.d_output_strides[2] + unit.dim_begin;
    const int64_t output_stride = call.heads * call.dim;
    const int64_t column = unit.head * call.dim + unit.dim_begin;
    const Value* outputs = static_cast<const Value*>(call.outputs) + column;
    Value* d_values = static_cast<Value*>(call.d_values) + column;
    const int64_t origin = unit.batch * call.time;
    const int64_t line = (unit.batch * call.heads + unit.head) * call.time;
    const Real* m = static_cast<const Real*>(call.m) + line;
    const Real* u = static_cast<const Real*>(call.u) + line;
    Real* d_scores = static_cast<Real*>(call.d_scores) + unit.head +
                     (unit.dim_unit * batches + unit.batch) * call.time * call.heads;

    alignas(64) Real state[kMaxUnitDim] = {};
    // The dims' shares of C: one vector for each group of dims that runs through the registers.
    Vector dots[kMaxUnitDim / lanes + 1] = {};
    if (call.dw_end) {
        const Real* dw = static_cast<const Real*>(call.dw_end) + unit.row * call.dim;
        std::copy(dw + unit.dim_begin, dw + unit.dim_begin + unit.dims, state);
    }
    if (call.du_end && unit.dim_unit == 0)
        dots[0][0] = -static_cast<const Real*>(call.du_end)[unit.row];

    alignas(64) Real decay[kBlock], weight[kBlock], inverse[kBlock], ds[kBlock];
    Real later = unit.end > unit.begin ? m[unit.end - 1] : 0;
    int64_t groups = 0;
    for (int64_t stop = unit.end; stop > unit.begin; stop -= kBlock) {
        const int64_t start = std::max(unit.begin, stop - kBlock), tokens = stop - start;
        const int64_t padded = (tokens + lanes - 1) / lanes * lanes;
        for (int64_t k = 0; k < tokens; ++k) {
            const Real floor = above_infinity(m[start + k]);
            const Real next = k + 1 < tokens ? m[start + k + 1] : later;
            decay[k] = m[start + k] - above_infinity(next);
            weight[k] = scores[(origin + start + k) * call.heads] - floor;
            inverse[k] = u[start + k] == 0 ? 0 : 1 / u[start + k];
            ds[k] = 0;
        }
        later = m[start];
        for (int64_t k = tokens; k < padded; ++k) decay[k] = weight[k] = 0;
        exponential(decay, padded);
        exponential(weight, padded);

        const Value* v = values + start * call.value_strides[1];
        const Value* g = gradients + start * call.d_output_strides[1];
        const int64_t shift = (origin + start) * output_stride;
        int64_t d = 0;
        groups = 0;
#define AAREN_BACKWARD(count, is_part, part)                                                     \
    backward_tokens<Value, count, is_part>(                                                      \
        v + d, call.value_strides[1], outputs + shift + d, output_stride, g + d,                 \
        call.d_output_strides[1], d_values + shift + d, state + d, dots + groups++, tokens,      \
        decay, weight, inverse, ds, part)
        for (; d + 8 * lanes <= unit.dims; d += 8 * lanes) AAREN_BACKWARD(8, false, 0);
        for (; d + 4 * lanes <= unit.dims; d += 4 * lanes) AAREN_BACKWARD(4, false, 0);
        for (; d + 2 * lanes <= unit.dims; d += 2 * lanes) AAREN_BACKWARD(2, false, 0);
        for (; d + lanes <= unit.dims; d += lanes) AAREN_BACKWARD(1, false, 0);
        if (d < unit.dims) AAREN_BACKWARD(1, true, unit.dims - d);
#undef AAREN_BACKWARD
        for (int64_t k = 0; k < tokens; ++k) d_scores[(start + k) * call.heads] = ds[k];
    }
    if (!call.du0) return;
    alignas(64) Real decay0[lanes] = {};
    decay0[0] = static_cast<const Real*>(call.m0)[unit.row];
    if (unit.end > unit.begin) {
        decay0[0] -= above_infinity(m[unit.begin]);
        exponential(decay0, lanes);
    } else {
        decay0[0] = 1;
    }
    Vector dot = dots[0];
    for (int64_t i = 1; i < groups; ++i) dot += dots[i];
    const int64_t rows = call.sequences * call.heads;
    static_cast<Real*>(call.du0)[unit.dim_unit * rows + unit.row] = -decay0[0] * sum_lanes(dot);
    Real* dw0 = static_cast<Real*>(call.dw0) + unit.row * call.dim + unit.dim_begin;
    for (int64_t i = 0; i < unit.dims; ++i) dw0[i] = decay0[0] * state[i];
}

FOR_EACH_CPU void forward_float(const Call& c, int64_t i) { forward_unit<float>(c, i); }
FOR_EACH_CPU void forward_bfloat(const Call& c, int64_t i) { forward_unit<BFloat>(c, i); }
FOR_EACH_CPU void forward_double(const Call& c, int64_t i) { forward_unit<double>(c, i); }
FOR_EACH_CPU void backward_float(const Call& c, int64_t i) { backward_unit<float>(c, i); }
FOR_EACH_CPU void backward_bfloat(const Call& c, int64_t i) { backward_unit<BFloat>(c, i); }
FOR_EACH_CPU void backward_double(const Call& c, int64_t i) { backward_unit<double>(c, i); }

typedef void (*UnitFunction)(const Call&, int64_t);

struct Work {
    const Call* call;
    UnitFunction function;
    int64_t units;
    std::atomic<int64_t> next;
};

void work_off(void* data) {
    Work& work = *static_cast<Work*>(data);
    for (int64_t i = work.next++; i < work.units; i = work.next++) work.function(*work.call, i);
}

void run(const Call& call, UnitFunction function) {
    const int64_t dim_units = (call.dim + call.unit_dim - 1) / call.unit_dim;
    Work work{&call, function, call.sequences * call.heads * dim_units, {0}};
    if (call.parallel && call.threads > 1)
        call.parallel(work_off, &work, static_cast<unsigned>(call.threads), 0);
    else
        work_off(&work);
}

}  // namespace

extern "C" {

// kind: 0 float32, 1 bfloat16 (both with float32 scores and state), 2 float64.
void aaren_prefix_attention_forward(const void* packed, int kind) {
    Call call;
    std::memcpy(&call, packed, sizeof call);
    run(call, kind == 0 ? forward_float : kind == 1 ? forward_bfloat : forward_double);
}

void aaren_prefix_attention_backward(const void* packed, int kind) {
    Call call;
    std::memcpy(&call, packed, sizeof call);
    run(call, kind == 0 ? backward_float : kind == 1 ? backward_bfloat : backward_double);
}

// The number of bytes of a packed call: the Python side checks that both agree.
int64_t aaren_prefix_attention_call_size() { return sizeof(Call); }
}
