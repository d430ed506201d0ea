; L05: intersecting the gates' bitsets gives exactly the services that pass all gates, and the lowest set bit is the
; first of them in winning order. For a block of 64 services and four gates; words are independent of each other.
; code: routing.Engine
(set-logic ALL)
(define-sort Bits () (_ BitVec 64))
(define-fun one () Bits #x0000000000000001)
(define-fun at ((s Bits) (i Bits)) Bool (= (bvand (bvlshr s i) one) one))
(declare-const g1 Bits) (declare-const g2 Bits) (declare-const g3 Bits) (declare-const g4 Bits)
(declare-const i Bits) (declare-const k Bits)
(define-fun able () Bits (bvand g1 (bvand g2 (bvand g3 g4))))
(define-fun low () Bits (bvand able (bvneg able)))
(assert (bvult i #x0000000000000040))
(assert (bvult k #x0000000000000040))
(push 1) ; expect unsat: bit i is set if and only if every gate holds
(assert (not (= (at able i) (and (at g1 i) (at g2 i) (at g3 i) (at g4 i)))))
(check-sat)
(pop 1)
(push 1) ; expect unsat: the isolated bit is able, and nothing before it is
(assert (= low (bvshl one i)))
(assert (not (and (at able i) (=> (bvult k i) (not (at able k))))))
(check-sat)
(pop 1)
(push 1) ; expect sat: the highest bit would be another
(assert (= low (bvshl one i)))
(assert (and (bvult i k) (at able k)))
(check-sat)
(pop 1)
