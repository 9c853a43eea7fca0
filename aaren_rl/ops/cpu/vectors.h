// Vectors of 64 bytes that the compiler maps to whatever the processor has, and their exponential.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#define INLINE static inline __attribute__((always_inline))

namespace {

typedef float Float16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef double Double8 __attribute__((vector_size(64), aligned(8), may_alias));
typedef int32_t Int16 __attribute__((vector_size(64)));
typedef uint32_t UInt16 __attribute__((vector_size(64)));
typedef uint16_t Short16 __attribute__((vector_size(32), aligned(2), may_alias));

struct BFloat {
    uint16_t bits;
};

template <typename Value>
struct Traits {
    typedef float Real;
    typedef Float16 Vector;
};
template <>
struct Traits<double> {
    typedef double Real;
    typedef Double8 Vector;
};

INLINE Float16 load(const float* p) { return *reinterpret_cast<const Float16*>(p); }
INLINE Double8 load(const double* p) { return *reinterpret_cast<const Double8*>(p); }
INLINE Float16 load(const BFloat* p) {
    const Short16 bits = *reinterpret_cast<const Short16*>(p);
    return (Float16)(__builtin_convertvector(bits, UInt16) << 16);
}
INLINE void store(float* p, Float16 x) { *reinterpret_cast<Float16*>(p) = x; }
INLINE void store(double* p, Double8 x) { *reinterpret_cast<Double8*>(p) = x; }
INLINE void store(BFloat* p, Float16 x) {
    const UInt16 bits = (UInt16)x;
    const UInt16 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const UInt16 nan = (UInt16)(x != x);
    const UInt16 chosen = (rounded & ~nan) | (nan & 0x7fc0u);
    *reinterpret_cast<Short16*>(p) = __builtin_convertvector(chosen, Short16);
}

template <typename Value, typename Vector>
INLINE Vector load_part(const Value* p, int64_t count) {
    Value buffer[sizeof(Vector) / sizeof(typename Traits<Value>::Real)] = {};
    std::memcpy(buffer, p, count * sizeof(Value));
    return load(buffer);
}
template <typename Value, typename Vector>
INLINE void store_part(Value* p, Vector x, int64_t count) {
    Value buffer[sizeof(Vector) / sizeof(typename Traits<Value>::Real)];
    store(buffer, x);
    std::memcpy(p, buffer, count * sizeof(Value));
}

INLINE float sum_lanes(Float16 x) {
    typedef float Float8 __attribute__((vector_size(32)));
    typedef float Float4 __attribute__((vector_size(16)));
    Float8 halves[2];
    std::memcpy(halves, &x, sizeof x);
    const Float8 half = halves[0] + halves[1];
    Float4 quarters[2];
    std::memcpy(quarters, &half, sizeof half);
    const Float4 y = quarters[0] + quarters[1];
    return (y[0] + y[2]) + (y[1] + y[3]);
}
INLINE double sum_lanes(Double8 x) {
    return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
}

// exp(x) for x <= 0 (or NaN), in place, to about one unit in the last place.
INLINE void exponential(float* p, int64_t count) {
    for (int64_t i = 0; i < count; i += 16) {
        const Float16 x = load(p + i);
        const Float16 low = Float16{} - 87.0f;
        const Float16 bounded = x < low ? low : x;
        const Float16 shifter = Float16{} + 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
        const Float16 shifted = bounded * 1.44269504088896341f + shifter;
        const Float16 n = shifted - shifter;
        const Float16 r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
        Float16 y = r * 1.9875691500e-4f + 1.3981999507e-3f;
        y = y * r + 8.3334519073e-3f;
        y = y * r + 4.1665795894e-2f;
        y = y * r + 1.6666665459e-1f;
        y = y * r + 5.0000001201e-1f;
        y = y * (r * r) + r + 1.0f;
        const Int16 exponent = ((Int16)shifted - 0x4b400000 + 127) << 23;
        store(p + i, x < low ? Float16{} : y * (Float16)exponent);
    }
}
INLINE void exponential(double* p, int64_t count) {
    for (int64_t i = 0; i < count; ++i) p[i] = std::exp(p[i]);
}

template <typename Real>
INLINE Real above_infinity(Real maximum) {
    return maximum < std::numeric_limits<Real>::lowest() ? std::numeric_limits<Real>::lowest()
                                                         : maximum;
}

}  // namespace
